"""`crossfade replicate --type`: keys whose type changes. Whatever is on the target of a type that is meant is as it is
on the source, and what is there of another type is not touched."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from backfill.direct import copier, pages
from backfill.direct.selection import Selection
from tests.equality import compare_servers
from tests.integration.direct_rig import compare, converged, live, replicate
from tests.integration.test_replicate_live import without_tracking
from tests.servers import Pool, Server
from tests.traffic import Traffic, preload

KINDS = frozenset({"hash", "list", "stream"})
TYPES = Selection(types=frozenset(kind.encode() for kind in KINDS))
PAIRS = [
    ("redis-6.2", "valkey-9.1"),
    pytest.param("redis-8.2", "redis-7.0", marks=pytest.mark.slow),
    pytest.param("valkey-8.1", "redis-6.2", marks=pytest.mark.slow),
]


def differences(source: Server, target: Server) -> list[Any]:
    return compare_servers(source, target, kinds=KINDS, stream_counters=False)


async def equal_soon(source: Server, target: Server, what: str) -> None:
    def equal() -> bool:
        try:
            return not differences(source, target)
        except RuntimeError:  # a key got another type while it was read
            return False

    with trio.move_on_after(15):
        while not await trio.to_thread.run_sync(equal):
            await trio.sleep(0.02)
        return
    raise AssertionError(f"{what}: {differences(source, target)}")


# What is done to a key on the source while it is followed, one after the other. "own" is on the target as a set, from
# before, and "mine" there as a hash.
STEPS: list[tuple[tuple[Any, ...], ...]] = [
    (("HSET", "k", "f", 1),),
    (("SET", "k", 1),),  # a type that is not meant takes its place
    (("DEL", "k"), ("RPUSH", "k", "a")),
    (("MULTI",), ("DEL", "k"), ("HSET", "k", "f", 2), ("EXEC",)),
    (("DEL", "k"),),
    (("SET", "k", 1),),
    (("SET", "s", 1), ("HSET", "h", "f", 1)),
    (("RENAME", "s", "h"),),  # what is meant is overwritten by what is not
    (("HSET", "h2", "f", 1), ("RENAME", "h2", "h")),  # and the other way round
    (("RENAME", "h", "h3"),),
    (("HSET", "h4", "f", 1), ("PEXPIRE", "h4", 1)),
    (("EVAL", "redis.call('set', 'h3', 1); redis.call('hset', 'unde' .. 'clared', 'f', 1)", 0),),
    (("XADD", "x", "1-1", "f", "v"), ("XGROUP", "CREATE", "x", "g", "0")),
    (("XREADGROUP", "GROUP", "g", "bob", "STREAMS", "x", ">"),),
    (("SADD", "own", 1),),
    (("DEL", "own"),),
    (("SET", "own", 1), ("DEL", "own"), ("HSET", "own", "f", 1)),  # now it is replaced
    (("SELECT", 3), ("SET", "k", 1), ("HSET", "k2", "f", 1)),
    (("SELECT", 3), ("RENAME", "k", "k2"), ("HSET", "k", "f", 1)),
    (("FLUSHALL",),),
    (("HSET", "again", "f", 1), ("ZADD", "z", 1, "a")),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize(
    "way", ["chosen", *(pytest.param(way, marks=pytest.mark.slow) for way in ("struct", "notified"))]
)
def test_every_kind_of_change(server_pool: Pool, tmp_path: Path, one: str, other: str, way: str) -> None:
    source, target = server_pool.get(one), server_pool.get(other)
    for words in (("SADD", "own", "own"), ("SET", "kept", "own"), ("SET", "k", "own"), ("HSET", "mine", "f", 1)):
        target.call(*words)
    source.call("SET", "kept", "other")
    source.call("ZADD", "mine", 1, "other")
    url = without_tracking(source) if way == "notified" else source.url
    run = live(url, target, tmp_path, selection=TYPES, allow_non_empty=True, struct=way == "struct")

    def do(commands: tuple[tuple[Any, ...], ...]) -> None:
        with source.client(single_connection_client=True) as client:
            client.response_callbacks.clear()
            for words in commands:
                client.execute_command(*words)

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.run)
                await converged(run)
                assert not target.call("EXISTS", "mine") and target.call("GET", "k") == b"own"
                for number, commands in enumerate(STEPS):
                    if commands[0][:2] == ("SET", "own"):
                        assert target.call("SMEMBERS", "own") == [b"own"]
                    await trio.to_thread.run_sync(do, commands)
                    await equal_soon(source, target, f"{number} {commands}")
                    if "own" in commands[0]:  # it makes no difference: so it takes the run to say that it has seen it
                        await converged(run)
                await converged(run)
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert target.call("GET", "kept") == b"own" and not target.call("EXISTS", "z"), "what is not meant stays away"
    assert target.call("KEYS", "*") and target.call("TYPE", "own") == b"none"
    assert compare(source, target, TYPES).different == 0
    assert not differences(source, target)


def churn(server: Server, rng: Random, rounds: int) -> None:
    """A few keys that have another type each time."""
    with server.client() as client:
        for _ in range(rounds):
            with client.pipeline() as pipe:
                for _ in range(20):
                    key, other = (f"pre:{rng.randrange(40)}" for _ in range(2))
                    match rng.randrange(8):
                        case 0 | 1:
                            pipe.set(key, rng.random())
                        case 2 | 3:
                            pipe.delete(key)
                            pipe.hset(key, "f", str(rng.random()))
                        case 4:
                            pipe.delete(key)
                            pipe.rpush(key, rng.random())
                        case 5:
                            pipe.delete(key)
                        case 6:
                            pipe.set(other, 1)
                            pipe.rename(other, key)
                        case _:
                            pipe.delete(key)
                            pipe.hset(key, "f", 1)
                            pipe.pexpire(key, rng.randrange(1, 30))
                pipe.execute()


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("paged", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["whole", "paged"])
def test_writers_that_go_on(
    server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, paged: bool
) -> None:
    source, target = server_pool.get(one), server_pool.get(other)
    preload(source, 1000, short_ttls=False)
    for number in range(0, 2000, 7):
        target.call(*(("SET", f"pre:{number}", "own") if number % 2 else ("HSET", f"pre:{number}", "own", 1)))
    own = {key for key in target.call("KEYS", "*") if target.call("TYPE", key) == b"string"}
    if paged:
        monkeypatch.setattr(copier, "PAGED_BYTES", 150)
        monkeypatch.setattr(pages, "PAGE_BYTES", 100)
    run = live(source, target, tmp_path, selection=TYPES, allow_non_empty=True, until_converged=True)

    async def main() -> None:
        traffic = Traffic(source, clients=6, rate=1000.0, seed=7, also_known_to=target)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            nursery.start_soon(run.run)
            for seed in range(3):
                nursery.start_soon(trio.to_thread.run_sync, churn, source, Random(seed), 60)
            while traffic.statistics().commands < 1500:
                await trio.sleep(0.05)
            await traffic.finish()

    trio.run(main)
    status = run.status()
    assert status["converged"] and status["changes"] > 300, json.dumps(status)
    assert not differences(source, target)
    assert compare(source, target, TYPES).different == 0
    stay = {key for key in own if source.call("TYPE", key).decode() not in KINDS}
    assert stay
    # What was replaced by a key that was meant and is no more has gone; all else is as it was.
    assert all(target.call("GET", key) == b"own" for key in stay if int(key.split(b":")[1]) >= 40)
    kinds = {target.call("TYPE", key).decode() for key in target.call("KEYS", "*") if key not in own}
    assert kinds - {"none"} <= KINDS  # one may expire at this moment


@pytest.mark.parametrize("chosen", [{"hash"}, {"hash", "set"}])
def test_compare_and_mend(server_pool: Pool, tmp_path: Path, chosen: set[str]) -> None:
    """A key that is meant on one side only is a difference, on whichever side; what is mended is of a type that is."""
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-8.1")
    for number, (here, there) in enumerate([("h", "h"), ("h", "s"), ("s", "h"), ("s", "s"), ("h", ""), ("", "h")]):
        for server, kind in ((source, here), (target, there)):
            if kind:
                server.call(*(("HSET", f"k{number}", "f", 1) if kind == "h" else ("SET", f"k{number}", server.port)))
    selection = Selection(types=frozenset(kind.encode() for kind in chosen))
    found = {each.key: each.status for each in compare(source, target, selection, rounds=1).findings}
    assert found == {b"k1": "type", b"k2": "extra", b"k4": "missing", b"k5": "extra"}
    report = compare(source, target, selection, rounds=1, fix=True)
    assert report.fixed == 4 and not compare_servers(source, target, kinds=frozenset(chosen))
    assert target.call("KEYS", "*k[25]") == [] and target.call("GET", "k3") == b"%d" % target.port


def test_extras_of_a_type(server_pool: Pool, tmp_path: Path) -> None:
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-8.1")
    source.call("SET", "k", 1)
    target.call("HSET", "k", "f", 1)
    target.call("SET", "own", 1)
    replicate(source, target, tmp_path, selection=TYPES, allow_non_empty=True)
    assert sorted(target.call("KEYS", "*")) == [b"k", b"own"]
    assert replicate(source, target, tmp_path, selection=TYPES, allow_non_empty=True, delete_extra=True)["deleted"] == 1
    assert target.call("KEYS", "*") == [b"own"]
