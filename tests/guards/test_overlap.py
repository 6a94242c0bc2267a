"""Invariant 5: a write on a pinned connection has no place in the lane's order, so its keys are held and then copied.

What is switched off: pinned writes are taken for ordered by the arrival of their replies; keys are not held; what was
copied while the write was in flight is believed.
"""

from __future__ import annotations

import pytest

from proxy.lane import Block
from proxy.pinned import Pinned
from proxy.repair import Repair
from tests.equality import What
from tests.guards.rig import RelayTo, in_thread, pins_by
from tests.inprocess import InProcess, in_process, until
from tests.relay import Way
from tests.servers import Server

OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"


async def transaction(running: InProcess, *commands: str):
    """A client whose MULTI stands on a connection of its own, all but the EXEC."""
    client = await running.client()
    assert await client.ask("WATCH guard", "MULTI", *commands) == [OK, OK, *[QUEUED] * len(commands)]
    return client


def order_of_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The naive proxy: the reply of a pinned transaction is mirrored where it arrives."""

    def committed(self: Pinned, block, replies) -> None:
        recorder = self._hub.recorder
        recorder.tick()
        commands = [(spec, args) for spec, args, _ in block.queue]
        recorder.committed(Block(commands), replies, block.db, self.session.resp, recorder.now)

    monkeypatch.setattr(Pinned, "_hold", lambda self, spec, args, db: [])
    monkeypatch.setattr(Pinned, "_committed", committed)


def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a guard: the keys are dirty from the moment the write is sent, but read at once."""

    def hold(self: Repair, place, reason) -> None:
        self.mark_unordered(place, reason)

    monkeypatch.setattr(Repair, "hold", hold)
    monkeypatch.setattr(Pinned, "_release", lambda self, places: None)


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
@pytest.mark.parametrize(
    ("pinned", "lane"),
    [("SET k pinned", "SET k lane"), ("SETRANGE k 0 pinned", "SETRANGE k 0 lane"), ("DEL k", "SET k lane")],
    ids=["SET", "SETRANGE", "DEL"],
)
async def test_the_reply_comes_late(
    guarded: bool, pinned: str, lane: str, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pinned write runs first; its reply is heard after that of a later write on the lane."""
    if not guarded:
        order_of_replies(monkeypatch)
    async with in_process(server_62, server_91) as running:
        other = await running.client()
        await other.ask("SET marker 0", "SET k before")
        client = await transaction(running, pinned, "SET marker 1")
        running.stall(running.pin(client).link)
        await client.say("EXEC")
        await until(lambda: server_62.call("GET", "marker") == b"1", "the transaction")
        assert (await other.ask(lane))[0][:1] in (b"+", b":")
        await until(lambda: running.hub.mirror.idle)
        running.go(running.pin(client).link)
        assert (await client.hear())[0].startswith(b"*2")
        await running.settled()
        found = await running.differences()
    if guarded:
        assert not found
    else:
        assert [one.key for one in found] == [b"k"]


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_a_copy_is_not_read_before_the_reply(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pinned write is under way to the server while its keys could be read, copied and settled."""
    if not guarded:
        nothing_held(monkeypatch)
    relay = relay_to(server_62)
    async with in_process(server_62, server_91) as running:
        pins_by(running, relay)
        other = await running.client()
        await other.ask("SET k old")
        client = await transaction(running, "SET k new")
        await in_thread(relay.hold, Way.TO_SERVER)
        await client.say("EXEC")
        await until(lambda: not running.pin(client).idle)
        if guarded:
            await until(lambda: (0, b"k") in running.hub.repair.keys)
        else:
            await until(lambda: running.hub.settled, "the premature copy")
        await in_thread(relay.heal)
        assert (await client.hear())[0] == b"*1\r\n+OK\r\n"
        await running.settled()
        found = await running.differences()
    if guarded:
        assert not found
    else:
        assert [(one.key, one.what) for one in found] == [(b"k", What.VALUE)]
