"""`crossfade replicate --mode live` on real servers: what is told of changes, what is not, and writers that go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio

from backfill.direct import copier, pages, replicate
from backfill.direct import live as live_module
from backfill.direct.feed import CannotFollow
from backfill.direct.replicate import Replication
from backfill.direct.selection import Selection
from tests.equality import assert_equal_servers, compare_servers
from tests.integration.direct_rig import Command, converged, fill_with_special_keys, live
from tests.proxies import run_crossfade, until
from tests.relay import Relay, Way
from tests.servers import NAMES, Pool, Server
from tests.traffic import Traffic, preload

QUICK = [("redis-6.2", "valkey-9.1")]
PAIRS = [
    pytest.param(*pair, id="-to-".join(pair), marks=[] if pair in QUICK else [pytest.mark.slow])
    for pair in product(NAMES, NAMES)
    if pair[0] != pair[1]
]


def without_tracking(source: Server) -> str:
    """A URL whose user may not use CLIENT TRACKING; the source notifies of everything."""
    source.call("CONFIG", "SET", "notify-keyspace-events", "KA")
    # 6.2 takes rules about subcommands of a command that is allowed as a whole only so:
    rule = (
        ["-client|tracking"] if source.version[1] >= 7 else ["-client", "+client|setname", "+client|id", "+client|kill"]
    )
    source.call("ACL", "SETUSER", "plain", "on", ">x", "~*", "&*", "+@all", *rule)
    return source.url.replace("redis://", "redis://plain:x@")


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("told", ["tracking", pytest.param("notifications", marks=pytest.mark.slow)])
def test_writers_that_go_on(server_pool: Pool, tmp_path: Path, one: str, other: str, told: str) -> None:
    source, target = server_pool.get(one), server_pool.get(other)
    preload(source, 1500, short_ttls=False)
    fill_with_special_keys(source)
    url = source.url if told == "tracking" else without_tracking(source)
    run = live(url, target, tmp_path, until_converged=True)

    async def main() -> None:
        traffic = Traffic(source, clients=10, rate=1500.0, seed=7, also_known_to=target)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            nursery.start_soon(run.run)
            while traffic.statistics().commands < 3000:
                await trio.sleep(0.05)
            await traffic.finish()

    trio.run(main)
    status = run.status()
    assert status["converged"] and status["changes"] > 300 and status["rescans"] == 0, status
    assert_equal_servers(source, target, stream_counters=False)


@asynccontextmanager
async def following(run: Replication) -> AsyncGenerator[None, None]:
    with trio.fail_after(50):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            await converged(run)
            yield
            nursery.cancel_scope.cancel()


ADD: tuple[Any, ...] = ("XADD", "s", "1-1", "f", "v")
MAKE: tuple[Any, ...] = ("XGROUP", "CREATE", "s", "g", "0")
READ: tuple[Any, ...] = ("XREADGROUP", "GROUP", "g", "bob", "COUNT", "1", "STREAMS", "s", ">")
# Setting up -> what is done when both sides are equal.
STEPS: dict[str, tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]] = {
    "delete": ([("SET", "k", 1)], [("DEL", "k")]),
    "rename": ([("SET", "k", 1, "PX", 10**8)], [("RENAME", "k", "other")]),
    "expire": ([("SET", "k", 1)], [("PEXPIRE", "k", 10**8)]),
    "persist": ([("SET", "k", 1, "PX", 10**8)], [("PERSIST", "k")]),
    "expired": ([("SET", "k", 1)], [("PEXPIRE", "k", 1)]),
    "move": ([("SET", "k", 1)], [("MOVE", "k", 5)]),
    "same name in two dbs": ([("SET", "k", 1), ("SELECT", 4), ("SET", "k", 2)], [("APPEND", "k", "x")]),
    "new db": ([("SET", "k", 1)], [("SELECT", 7), ("SET", "new", 1)]),
    "flushdb": ([("SET", "k", 1), ("SELECT", 1), ("SET", "a", 1), ("SET", "b", 1)], [("FLUSHDB",), ("SET", "b", 2)]),
    "flushall": ([("SET", "k", 1), ("SELECT", 1), ("SET", "a", 1)], [("FLUSHALL",)]),
    "swapdb": ([("SET", "k", 1), ("SELECT", 1), ("SET", "a", 1)], [("SWAPDB", 0, 1), ("SET", "c", 1)]),
    "script": ([("SET", "k", 1)], [("EVAL", "redis.call('set', 'un' .. 'declared', 1)", 0)]),
    "transaction": ([("SET", "k", 1)], [("MULTI",), ("INCR", "k"), ("DEL", "n"), ("SET", "m", 1), ("EXEC",)]),
    "group made": ([ADD], [MAKE]),
    "made with its stream": ([], [("XGROUP", "CREATE", "s", "g", "0", "MKSTREAM")]),
    "read": ([ADD, MAKE], [READ]),
    "acknowledged": ([ADD, MAKE, READ], [("XACK", "s", "g", "1-1")]),
    "claimed": ([ADD, MAKE, READ], [("XCLAIM", "s", "g", "eve", 0, "1-1")]),
    "set id": ([ADD], [("XSETID", "s", "9-9")]),
    "destroyed": ([ADD, MAKE], [("XGROUP", "DESTROY", "s", "g")]),
}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("redis-6.2", "tracking"),
        pytest.param("redis-6.2", "notifications", marks=pytest.mark.slow),
        pytest.param("valkey-9.1", "tracking", marks=pytest.mark.slow),
        pytest.param("valkey-9.1", "notifications", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_change(
    server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    """One by one, on a run that goes on: each time both sides are equal again, also after what no feed tells."""
    monkeypatch.setattr(live_module, "STREAMS_S", 0.1)
    monkeypatch.setattr(live_module, "COUNTERS_S", 0.1)
    source, target = server_pool.get(name), server_pool.get("redis-8.2")
    url = source.url if told == "tracking" else without_tracking(source)
    run = live(url, target, tmp_path)

    def do(commands: list[tuple[Any, ...]]) -> None:
        with source.client(single_connection_client=True) as client:
            client.response_callbacks.clear()
            for words in commands:
                client.execute_command(*words)

    async def main() -> None:
        async with following(run):
            for step, (before, then) in STEPS.items():
                await trio.to_thread.run_sync(do, [("FLUSHALL",), *before])
                for commands in ([], then):
                    await trio.to_thread.run_sync(do, commands)
                    await equal_soon(source, target, step)

    trio.run(main)


def same(source: Server, target: Server) -> bool:
    """Whether they are equal; what is being changed is not."""
    try:
        return not compare_servers(source, target, stream_counters=False)
    except RuntimeError:  # a key got another type while it was read
        return False


async def equal_soon(source: Server, target: Server, what: str) -> None:
    with trio.move_on_after(15):
        while not await trio.to_thread.run_sync(same, source, target):
            await trio.sleep(0.02)
        return
    raise AssertionError(f"{what}: {compare_servers(source, target, stream_counters=False)}")


def test_a_group_that_is_made_and_destroyed_between_two_looks(
    server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells of either, and the stream looks as at the last look; in between it was copied."""
    monkeypatch.setattr(live_module, "STREAMS_S", 1000.0)
    monkeypatch.setattr(replicate, "CHECK_S", 2.0)
    source, target = server_pool.get("redis-6.2"), server_pool.get("redis-8.2")
    source.call(*ADD)
    run = live(source, target, tmp_path)

    async def main() -> None:
        async with following(run):
            with source.client(single_connection_client=True) as client, client.pipeline() as block:
                block.execute_command(*MAKE).pexpire("s", 10**8).execute()
            while not await trio.to_thread.run_sync(same, source, target):
                await trio.sleep(0.02)
            source.call("XGROUP", "DESTROY", "s", "g")
            await equal_soon(source, target, "made and destroyed")

    trio.run(main)


def test_what_is_not_meant_stays_as_it_is(server_pool: Pool, tmp_path: Path) -> None:
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-8.1")
    source.call("SET", "a:1", 1)
    source.call("SET", "b:1", 1)
    target.call("SET", "b:1", "own")
    run = live(source, target, tmp_path, selection=Selection(match=(b"a:*",)), allow_non_empty=True)

    async def main() -> None:
        async with following(run):
            for words in (("DEL", "a:1"), ("SET", "a:2", 2), ("DEL", "b:1"), ("SET", "b:2", 2)):
                await trio.to_thread.run_sync(source.call, *words)
            await converged(run)

    trio.run(main)
    assert sorted(target.call("KEYS", "*")) == [b"a:2", b"b:1"] and target.call("GET", "b:1") == b"own"


@pytest.mark.parametrize("what", [pytest.param("feed lost", marks=pytest.mark.slow), "target lost", "overflow"])
def test_a_gap_leads_to_a_rescan(server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Whatever was missed meanwhile is found again, deletions as well."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(source, 1000, short_ttls=False)
    if what == "overflow":
        monkeypatch.setattr(live_module, "MAX_DIRTY", 40)
    with Relay(source) as one, Relay(target) as other:
        run = live(one, other, tmp_path)

        relay = one if what == "feed lost" else other

        def write() -> None:
            if what != "overflow":
                relay.stop()  # nothing comes through until it is cut
            with source.client() as client, client.pipeline() as pipe:
                for number in range(300):
                    pipe.delete(f"pre:{number}")
                    pipe.set(f"new:{number}", number)
                pipe.execute()
            if what != "overflow":
                relay.cut()
                relay.heal()

        async def main() -> None:
            async with following(run):
                await trio.to_thread.run_sync(write)
                await equal_soon(source, target, what)
                await converged(run)

        trio.run(main)
    status = run.status()
    assert status["attempts"] == (1 if what == "overflow" else 2)
    assert (status["rescans"] > 0) == (what == "overflow"), status


@pytest.mark.parametrize("what", ["reconnected", pytest.param("killed", marks=pytest.mark.slow)])
def test_what_was_sent_before_a_loss_never_comes_later(server_pool: Pool, tmp_path: Path, what: str) -> None:
    """An old value is between us and the target when the connection is lost; the network delivers it much later."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    source.call("SET", "k", "first")
    with Relay(target) as relay:

        def write(value: str) -> None:
            source.call("SET", "k", value)

        async def arrived(value: bytes) -> None:
            while await trio.to_thread.run_sync(target.call, "GET", "k") != value:
                await trio.sleep(0.01)

        async def held() -> int:
            return await trio.to_thread.run_sync(lambda: relay.held)

        async def hold_the_old() -> None:
            await trio.to_thread.run_sync(relay.hold, Way.TO_SERVER)
            before = await held()
            await trio.to_thread.run_sync(write, "old")
            while await held() == before:
                await trio.sleep(0.01)
            assert await trio.to_thread.run_sync(relay.strand) > 0
            await trio.to_thread.run_sync(relay.heal)

        async def deliver_it() -> None:
            await trio.to_thread.run_sync(write, "new")
            await arrived(b"new")
            await trio.to_thread.run_sync(relay.deliver)

        async def reconnected() -> None:
            async with following(live(source, relay, tmp_path)):
                await hold_the_old()
                await deliver_it()

        async def killed() -> None:
            """As after a SIGKILL: another run finds the checkpoint, and nothing else."""
            async with following(live(source, relay, tmp_path)):
                while not list(tmp_path.glob("replicate-*.json")):
                    await trio.sleep(0.01)
                saved = {file: file.read_bytes() for file in tmp_path.glob("replicate-*.json")}
                await hold_the_old()
            for file, content in saved.items():
                file.write_bytes(content)
            async with following(live(source, relay, tmp_path)):
                await deliver_it()

        trio.run(reconnected if what == "reconnected" else killed)
    assert target.call("GET", "k") == b"new"


def test_a_big_copy_does_not_overtake(server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key grows big while its small copy is under way: pages have a connection of their own, yet come later."""
    monkeypatch.setattr(copier, "PAGED_BYTES", 3000)
    monkeypatch.setattr(pages, "PAGE_BYTES", 1000)
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    source.call("HSET", "k", "f", "v")
    with Relay(target) as relay:

        async def main() -> None:
            run = live(source, relay, tmp_path)
            async with following(run):
                await trio.to_thread.run_sync(relay.hold_these, Way.TO_SERVER)
                await trio.to_thread.run_sync(source.call, "HSET", "k", "f", "w")
                while not await trio.to_thread.run_sync(lambda: relay.held):
                    await trio.sleep(0.01)
                fields = [word for number in range(500) for word in (f"field {number}", number)]
                await trio.to_thread.run_sync(source.call, "HSET", "k", *fields)
                with trio.move_on_after(0.5):  # it must not come: the small copy is still under way
                    while await trio.to_thread.run_sync(target.call, "HLEN", "k") == 1:
                        await trio.sleep(0.01)
                await trio.to_thread.run_sync(relay.heal)
                await converged(run)
            assert run.status()["big"] == 1, run.status()

        trio.run(main)
    assert_equal_servers(source, target)


def test_a_big_key_that_never_rests(server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to let everything else wait, and is equal once it rests."""
    monkeypatch.setattr(copier, "PAGED_BYTES", 3000)
    monkeypatch.setattr(pages, "PAGE_BYTES", 1000)
    monkeypatch.setattr(live_module, "RETRY_S", 0.3)
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    with source.client() as client:
        client.hset("big", mapping={f"field {number}": "x" * 20 for number in range(2000)})
        client.set("small", 1)
    run = live(source, target, tmp_path)

    async def main() -> None:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.run)
                number = 0
                while number < 60:
                    number += 1
                    await trio.to_thread.run_sync(source.call, "HSET", "big", "field 7", number)
                await trio.to_thread.run_sync(source.call, "SET", "small", 2)
                while await trio.to_thread.run_sync(target.call, "GET", "small") != b"2":
                    await trio.sleep(0.01)
                await converged(run)
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert_equal_servers(source, target)


def test_a_source_that_cannot_be_followed(server_pool: Pool, tmp_path: Path) -> None:
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-9.1")
    url = without_tracking(source)
    source.call("CONFIG", "SET", "notify-keyspace-events", "KE$")
    with pytest.raises(CannotFollow, match=r"cannot be followed: CLIENT TRACKING: NOPERM.*would have to be 'KA'"):
        trio.run(live(url, target, tmp_path).run)


def test_no_claim_without_knowing(server_pool: Pool, tmp_path: Path) -> None:
    """Notifications from a server that does not tell which ones: copied, but not called equal."""
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-9.1")
    preload(source, 300, short_ttls=False)
    url = without_tracking(source)
    source.call("ACL", "SETUSER", "plain", "-config")
    run = live(url, target, tmp_path, until_converged=True)
    trio.run(run.run)
    status = run.status()
    assert not status["converged"] and not run.clean and "does not tell whether it notifies" in status["why"], status
    assert_equal_servers(source, target)


@pytest.mark.slow
def test_the_command(server_pool: Pool, tmp_path: Path, start_server: Callable[..., Server]) -> None:
    """Killed, begun again, ended by a signal: equal, and it says so."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("redis-8.2")
    preload(source, 1500, short_ttls=False)
    args = ("replicate", source.url, target.url, "--mode", "live", "--state-dir", str(tmp_path))
    with Command(*args) as command:
        until(lambda: target.call("DBSIZE") + target.call("DBSIZE", db=1) == 1500, "all keys")
        until(lambda: list(tmp_path.glob("replicate-*.json")), "a checkpoint")
        command.kill()
    source.call("DEL", "pre:1", "pre:2", "pre:3")
    source.call("SET", "new", 1)
    with Command(*args) as command:
        until(
            lambda: target.call("GET", "new") == b"1" and not target.call("EXISTS", "pre:1"), "what changed meanwhile"
        )
        until(lambda: same(source, target), "equality")
        source.call("SET", "newer", 1)
        until(lambda: target.call("GET", "newer") == b"1", "a change")
        until(lambda: same(source, target), "equality")
        code, out, err = command.interrupt()
    assert "converged: " in out and code in (0, 1), err  # it may just have been looking
    result = run_crossfade(*args, "--until-converged", "--json").done()
    assert result.json["converged"] is True
    assert_equal_servers(source, target)
