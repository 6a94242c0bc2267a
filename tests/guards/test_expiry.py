"""The expiry guard, part by part: a read-modify-write that falls between the two sides' expiry of its key.

Each schedule ends with what both sides hold once the key has expired, or would have: the commands are chosen so that
the replies are equal on both sides whatever they built on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import redis

from proxy.judging import Judge
from proxy.mirror import Mirror
from tests.equality import Difference
from tests.guards.rig import Gate, RelayTo, in_thread, keep_clocks
from tests.inprocess import in_process, until
from tests.relay import Way
from tests.servers import Server

MINUTE_MS = 60_000
SOON_MS = 200
ATTEMPTS = 5  # of a schedule that needs a few commands to be quicker than a deadline

SwitchOff = Callable[[pytest.MonkeyPatch], None]


def rule(judge: Callable[[int, float, float], bool]) -> SwitchOff:
    """Another rule in place of the guard's, of the key's remaining ms on the mirror side, uncertainty and age in ms."""

    def is_near(self: Judge, pttl: int, replied: float) -> bool:
        return judge(pttl, self._roles.uncertainty_ms, (self._clock() - replied) * 1000)

    return lambda monkeypatch: monkeypatch.setattr(Judge, "_is_near", is_near)


def near(pttl: int, limit: float) -> bool:
    return 0 <= pttl <= limit


ON: SwitchOff = lambda monkeypatch: None  # noqa: E731
ABSENT_IS_FINE = rule(lambda pttl, uncertainty, age: near(pttl, uncertainty + age))
PRESENT_IS_FINE = rule(lambda pttl, uncertainty, age: pttl == -2)
NO_UNCERTAINTY = rule(lambda pttl, uncertainty, age: pttl == -2 or near(pttl, age))
NO_AGE = rule(lambda pttl, uncertainty, age: pttl == -2 or near(pttl, uncertainty))
NO_MULTI: SwitchOff = lambda monkeypatch: monkeypatch.setattr("proxy.recorder.sets_deadline", lambda effect: False)  # noqa: E731
NEVER_LATE: SwitchOff = lambda monkeypatch: monkeypatch.setattr("proxy.recorder.LATE_SECONDS", math.inf)  # noqa: E731


def pair(off: SwitchOff) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("switch", "guarded"), [(ON, True), (off, False)], ids=["on", "off"])


def judge(guarded: bool, found: list[Difference], *keys: bytes) -> None:
    assert [one.key for one in found] == ([] if guarded else list(keys))


def gone(server: Server, key: str) -> Callable[[], bool]:
    def look() -> bool:
        return bool(server.call("EXISTS", key) == 0)

    return look


@pytest.fixture(autouse=True)
def clocks_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_clocks(monkeypatch)


# -- the two clocks are not as far apart as was measured --------------------------------------------------------------


@pytest.mark.parametrize(("switch", "guarded"), [(ON, True), (PRESENT_IS_FINE, False), (NO_UNCERTAINTY, False)])
@pytest.mark.parametrize(
    "write", ["HSET k new 1", "SADD k new", "ZADD k 1 new", "SETBIT k 800 0", "XADD k 5-1 f v", "BITFIELD k SET u8 0 0"]
)
async def test_expired_at_the_source_first(
    write: str, switch: SwitchOff, guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PTTL near zero, by as much as the clocks' offset may be wrong."""
    switch(monkeypatch)
    before = {"HSET": "HSET k old 1", "SADD": "SADD k old", "ZADD": "ZADD k 1 old", "XADD": "XADD k 1-1 f v"}
    async with in_process(server_62, server_91) as running:
        client = await running.client()
        running.clocks(0, 0)
        await client.ask(before.get(write.split()[0], r"SETBIT k 80 1"))
        await running.settled()
        running.clocks(mirror_offset_ms=MINUTE_MS, uncertainty_ms=MINUTE_MS)
        await client.ask(f"PEXPIRE k {SOON_MS}")
        await until(gone(server_62, "k"))
        await client.ask(write)
        await running.settled()
        judge(guarded, await running.differences(), b"k")


@pair(ABSENT_IS_FINE)
async def test_expired_on_the_mirror_side_first(
    switch: SwitchOff, guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PTTL -2: what had expired there, and not yet at the source, comes back as an immortal stump."""
    switch(monkeypatch)
    async with in_process(server_62, server_91) as running:
        client = await running.client()
        running.clocks(mirror_offset_ms=-MINUTE_MS, uncertainty_ms=MINUTE_MS)
        await client.ask("HSET k old 1", f"PEXPIRE k {MINUTE_MS // 2}")  # half a minute ago, says the mirror's "clock"
        await running.settled()
        assert (await client.ask("HSET k new 1")) == [b":1\r\n"]
        await running.settled()
        judge(guarded, await running.differences(ttl_tolerance_ms=MINUTE_MS), b"k")


# -- lag --------------------------------------------------------------------------------------------------------------


@pair(ABSENT_IS_FINE)
async def test_expired_while_the_effect_was_on_its_way(
    switch: SwitchOff,
    guarded: bool,
    relay_to: RelayTo,
    server_62: Server,
    server_91: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PTTL -2 by lag alone: the key lived when the source ran the command, and is gone on both sides when the mirror
    side gets to it."""
    switch(monkeypatch)
    NEVER_LATE(monkeypatch)
    relay = relay_to(server_91)
    async with in_process(server_62, server_91, by_target=relay.url) as running:
        running.clocks(0, 0)
        client = await running.client()
        await in_thread(relay.hold, Way.TO_SERVER)
        assert await client.ask(f"SET k x PX {SOON_MS}", "SETBIT k 7 1") == [b"+OK\r\n", b":0\r\n"]
        await until(gone(server_62, "k"))
        await in_thread(relay.heal)
        await running.settled()
        judge(guarded, await running.differences(), b"k")


@pair(NO_AGE)
async def test_expired_between_the_question_and_the_effect(
    switch: SwitchOff, guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PTTL was well above the clocks' uncertainty when it was asked; the effect came later than that."""
    switch(monkeypatch)
    gate = Gate(monkeypatch)
    ask = Mirror._guard

    def guard(mirror: Mirror, key: bytes) -> None:
        ask(mirror, key)
        gate.flush(mirror)
        gate.shut = True

    async with in_process(server_62, server_91) as running:
        running.clocks(0, 0)
        client = await running.client()
        key = ""
        for attempt in range(ATTEMPTS):
            key = f"k{attempt}"
            await client.ask(f"XADD {key} 1-1 old 1")
            await running.settled()
            deadline = int(time.time() * 1000) + SOON_MS * 2**attempt
            await client.ask(f"PEXPIREAT {key} {deadline}")
            await until(lambda: running.hub.mirror.idle)
            monkeypatch.setattr(Mirror, "_guard", guard)
            await client.ask(f"XADD {key} 2-1 new 1")  # its question goes apart from it, as it is not mirrored as sent
            await until(lambda: running.hub.mirror.judge._pttls, "the answer to PTTL")
            in_time = running.hub.mirror.judge._pttls[0] > 0
            await until(gone(server_91, key))
            monkeypatch.setattr(Mirror, "_guard", ask)
            gate.shut = False
            running.hub.flush()
            await running.settled()
            if in_time:
                break
        judge(guarded, await running.differences(), key.encode())


# -- deadlines --------------------------------------------------------------------------------------------------------


@pair(NO_MULTI)
@pytest.mark.parametrize("deadline", ["SET k x PX {}", "PEXPIRE k {}", "GETEX k PX {}"])
async def test_a_deadline_set_and_built_upon_in_one_transaction(
    deadline: str,
    switch: SwitchOff,
    guarded: bool,
    relay_to: RelayTo,
    server_62: Server,
    server_91: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The question is asked before the transaction, when the key had no deadline yet."""
    switch(monkeypatch)
    NEVER_LATE(monkeypatch)
    relay = relay_to(server_91)
    async with in_process(server_62, server_91, by_target=relay.url) as running:
        running.clocks(0, 0)
        client = await running.client()
        await client.ask("SET k a")
        await running.settled()
        await in_thread(relay.hold, Way.TO_SERVER)
        replies = await client.ask("MULTI", deadline.format(SOON_MS), "SETBIT k 6 1", "EXEC")
        assert replies[-1].startswith(b"*2\r\n")
        await until(gone(server_62, "k"))
        await in_thread(relay.heal)
        await running.settled()
        judge(guarded, await running.differences(), b"k")


@pair(NEVER_LATE)
@pytest.mark.parametrize(
    "write", ["SET k v PX 60000", "PSETEX k 60000 v", "PEXPIRE there 60000", "GETEX there EX 60", "EXPIRE there 60"]
)
async def test_a_relative_expiry_that_was_long_in_flight(
    write: str,
    switch: SwitchOff,
    guarded: bool,
    relay_to: RelayTo,
    server_62: Server,
    server_91: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reply comes so late that the deadline counted from it is another one."""
    switch(monkeypatch)
    relay = relay_to(server_62)
    key = write.split()[1]
    async with in_process(server_62, server_91, by_source=relay.url) as running:
        running.clocks(0, 0)
        client = await running.client()
        await client.ask("SET there v")
        await running.settled()
        await in_thread(relay.hold, Way.TO_CLIENT)
        await client.say(write)
        await until(lambda: 0 < server_62.call("PTTL", key) < MINUTE_MS - 400)
        await in_thread(relay.heal)
        await client.hear()
        await running.settled()
        judge(guarded, await running.differences(ttl_tolerance_ms=200), key.encode())


async def test_the_servers_share_one_clock(server_62: Server, server_91: Server) -> None:
    """What the tests above build on."""
    now = time.time()
    for server in (server_62, server_91):
        with redis.Redis(port=server.port) as client:
            assert abs(client.time()[0] - now) < 5
