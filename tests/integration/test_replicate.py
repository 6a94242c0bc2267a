"""`crossfade replicate --mode snapshot` on real servers: every pair of versions, big keys, filters, and what fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill.direct import copier, pages, pipe
from backfill.direct import replicate as replicate_module
from backfill.direct.nurseries import open_nursery
from backfill.direct.patterns import compile_pattern
from backfill.direct.replicate import Mode, Refused
from backfill.direct.selection import Selection
from backfill.embedded import TlsFiles
from backfill.errors import ConnectionLost
from resp.slots import key_slot
from tests.equality import assert_equal_servers, compare_servers
from tests.integration.direct_rig import Command, compare, fill_with_special_keys, replicate, replication, run_here
from tests.proxies import CROSSFADE, ROOT, run_crossfade, until
from tests.relay import Relay
from tests.servers import NAMES, Pool, Server
from tests.traffic import preload

QUICK = [("redis-6.2", "valkey-9.1"), ("redis-8.2", "redis-6.2")]
PAIRS = [
    pytest.param(*pair, id="-to-".join(pair), marks=[] if pair in QUICK else [pytest.mark.slow])
    for pair in product(NAMES, NAMES)
    if pair[0] != pair[1]
]


@pytest.fixture
def two(server_pool: Pool) -> tuple[Server, Server]:
    return server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("struct", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["chosen", "struct"])
def test_snapshot(server_pool: Pool, tmp_path: Path, one: str, other: str, struct: bool) -> None:
    source, target = server_pool.get(one), server_pool.get(other)
    preload(source, 1500, short_ttls=False)
    fill_with_special_keys(source)
    status = replicate(source, target, tmp_path, struct=struct)
    assert status["failed"] == 0 and status["scanned"] == status["total"], status
    assert_equal_servers(source, target, stream_counters=False)
    report = compare(source, target)
    assert (report.different, report.checked) == (0, status["total"])
    assert not list(tmp_path.iterdir())  # nothing is left of a run that is complete


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_snapshot_to_the_same_version(
    server_pool: Pool, start_server: Callable[..., Server], tmp_path: Path, name: str
) -> None:
    source, target = server_pool.get(name), start_server(name)
    preload(source, 1500, short_ttls=False)
    fill_with_special_keys(source)
    replicate(source, target, tmp_path)
    assert_equal_servers(source, target)


# -- big keys ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Big begins at a few kilobytes."""
    monkeypatch.setattr(copier, "PAGED_BYTES", 3000)
    monkeypatch.setattr("backfill.direct.comparing.PAGED_BYTES", 3000)
    monkeypatch.setattr(pages, "PAGE_BYTES", 1000)
    monkeypatch.setattr(pages, "PIECE_BYTES", 1000)


def fill_with_big_keys(server: Server, n: int = 600) -> None:
    with server.client() as client, client.pipeline(transaction=False) as pipe:
        pipe.set("big:string", b"0123456789" * n)
        for i in range(n):
            pipe.hset("big:{tag}hash", f"field {i}", f"value {i}")
            pipe.sadd("big:set}", f"member {i}")
            pipe.zadd("big:zset", {f"member {i}": i / 3})
            pipe.rpush("big:list", f"item {i}")
            pipe.xadd("big:stream", {"f": f"value {i}"}, id=f"{i + 1}-0")
        pipe.execute_command("XGROUP", "CREATE", "big:stream", "g", "0")
        pipe.execute_command("XREADGROUP", "GROUP", "g", "c", "COUNT", n - 10, "STREAMS", "big:stream", ">")
        pipe.execute_command("XGROUP", "CREATE", "big:stream", "other", "77-0")
        pipe.xdel("big:stream", "10-0", "300-0")
        pipe.xack("big:stream", "g", "3-0")
        for key in ("big:zset", "big:string", "big:stream"):
            pipe.pexpire(key, 100_000_000)
        pipe.execute()


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_big_keys_in_pages(server_pool: Pool, tmp_path: Path, one: str, other: str) -> None:
    source, target = server_pool.get(one), server_pool.get(other)
    fill_with_big_keys(source)
    target.call("SET", "big:list", "something else")
    status = replicate(source, target, tmp_path, allow_non_empty=True)
    assert (status["big"], status["failed"], status["rereads"]) == (6, 0, 0)
    assert_equal_servers(source, target, stream_counters=False)
    assert compare(source, target).different == 0


@pytest.mark.usefixtures("small_pages")
def test_deadlines_of_fields_in_pages(server_pool: Pool, tmp_path: Path) -> None:
    source, target = server_pool.get("redis-8.2"), server_pool.get("valkey-9.1")
    fill_with_big_keys(source)
    source.call("HPEXPIRE", "big:{tag}hash", 10_000_000, "FIELDS", 2, "field 5", "field 500")
    replicate(source, target, tmp_path)
    assert_equal_servers(source, target, stream_counters=False)
    target.call("HPERSIST", "big:{tag}hash", "FIELDS", 1, "field 500")
    (finding,) = compare(source, target).findings
    assert (finding.status, finding.detail) == ("ttl", "field 'field 500' expires only on the source")


CHANGES: dict[str, tuple[Any, ...]] = {
    "big:string": ("SETRANGE", "big:string", 3, "changed"),
    "big:{tag}hash": ("HSET", "big:{tag}hash", "field 1", "changed"),
    "big:set}": ("SREM", "big:set}", "member 1", "member 2"),
    "big:zset": ("ZADD", "big:zset", 1, "member 5"),
    "big:list": ("LPUSH", "big:list", "first"),
    "big:stream": ("XDEL", "big:stream", "2-0"),
}


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_a_big_key_that_changes_under_its_pages(
    two: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    """What has been read already is changed: a copy that does not notice is different at the end."""
    source, target = two
    fill_with_big_keys(source)
    changed: set[bytes] = set()

    def change_behind(pager: pages.Pager) -> pages.Pager:
        async def paged(reading: Any) -> AsyncGenerator[list[list[bytes]], None]:
            first = True
            async with aclosing(pager.pages(reading)) as inner:
                async for commands in inner:
                    yield commands
                    if first and (always or reading.key not in changed):
                        changed.add(reading.key)
                        words = CHANGES[reading.key.decode()]
                        await trio.to_thread.run_sync(partial(source.call, *words))
                    first = False

        return pages.Pager(paged, pager.length)

    monkeypatch.setattr(pages, "PAGERS", {kind: change_behind(pager) for kind, pager in pages.PAGERS.items()})
    status = replicate(source, target, tmp_path)
    assert status["rereads"] >= 6, status
    assert changed == {name.encode() for name in CHANGES}
    assert_equal_servers(source, target, stream_counters=False)
    assert not [key for key in target.call("KEYS", "*") if key.startswith(pages.PREFIX)]


@pytest.mark.usefixtures("small_pages")
def test_a_big_key_holds_up_no_other_but_the_checkpoint(
    two: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last page waits for all the small ones: a copy that waited for it, too, would never end, and a checkpoint
    beyond it would lose it."""
    source, target = two
    source.call("DEBUG", "POPULATE", 3000)
    with source.client() as client:
        client.zadd("big:zset", {f"member {i}": i / 3 for i in range(600)})
    run = replication(source, target, tmp_path)
    positions: list[int] = []

    async def held(reading: Any) -> AsyncGenerator[list[list[bytes]], None]:
        async with aclosing(pager.pages(reading)) as inner:
            async for commands in inner:
                yield commands
        while run.tally.copied < 3000:
            await trio.sleep(0.005)
        positions.append(run.tally.position.scanned)

    pager = pages.PAGERS[b"zset"]
    monkeypatch.setattr(pages, "PAGERS", {b"zset": pages.Pager(held, pager.length)})
    trio.run(run.run)
    assert positions and positions[0] < 3000 and run.tally.big == 1
    assert_equal_servers(source, target)


# -- clocks, connections -----------------------------------------------------------------------------------------------


def test_clocks_that_differ(
    server_82: Server, start_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines are those of the target's clock, also those of fields, which a payload carries in the source's."""
    hour = 3_600_000

    async def an_hour(source: Any, target: Any) -> int:
        return hour

    monkeypatch.setattr(replicate_module, "shift_between", an_hour)
    source, target = server_82, start_server("redis-8.2")
    source.call("SET", "k", 1, "PX", 10**8)
    source.call("HSET", "h", "f", 1, "g", 2)
    source.call("HPEXPIRE", "h", 10**8, "FIELDS", 1, "f")
    replicate(source, target, tmp_path)
    assert target.call("PEXPIRETIME", "k") == source.call("PEXPIRETIME", "k") + hour
    fields = ("HPEXPIRETIME", "h", "FIELDS", 2, "f", "g")
    assert target.call(*fields) == [source.call(*fields)[0] + hour, -1]


def test_tls_and_a_unix_socket(start_server: Callable[..., Server], tls_files: TlsFiles, tmp_path: Path) -> None:
    source = start_server("redis-7.0", tls=tls_files, password="a:/b@c")
    target = start_server("valkey-9.1", unixsocket=True, password="d")
    preload(source, 2000, short_ttls=False)
    url = f"unix://:d@{target.socket_path}"
    assert replicate(source, url, tmp_path)["copied"] == 2000
    assert compare(source, url).different == 0
    assert_equal_servers(source, target)


# -- choosing ----------------------------------------------------------------------------------------------------------


def names_on(server: Server, db: int = 0) -> set[bytes]:
    return set(server.call("KEYS", "*", db=db))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(match=(b"pre:1*",)), lambda key, kind, db: key.startswith(b"pre:1")),
        (Selection(match=(b"pre:1*", b"*[35]")), lambda key, kind, db: key.startswith(b"pre:1") or key[-1:] in b"35"),
        (Selection(exclude=(b"*1*", b"*2*")), lambda key, kind, db: b"1" not in key and b"2" not in key),
        (Selection(types=frozenset([b"hash"])), lambda key, kind, db: kind == b"hash"),
        (Selection(types=frozenset([b"hash", b"zset"])), lambda key, kind, db: kind in (b"hash", b"zset")),
        (Selection(dbs=frozenset([1])), lambda key, kind, db: db == 1),
        (Selection(slots=((0, 1000), (16000, 16383))), lambda key, kind, db: not 1000 < key_slot(key) < 16000),
    ],
    ids=["match", "two", "exclude", "type", "types", "db", "slots"],
)
def test_selections(
    two: tuple[Server, Server], tmp_path: Path, selection: Selection, expected: Callable[..., bool]
) -> None:
    source, target = two
    preload(source, 120, short_ttls=False)
    target.call("SET", "own", 1)
    target.call("HSET", "pre:1 own", 1, 1, db=1)
    replicate(source, target, tmp_path, selection=selection, allow_non_empty=True)
    for db in (0, 1):
        chosen = {key for key in names_on(source, db) if expected(key, source.call("TYPE", key, db=db), db)}
        own = {b"own"} if db == 0 else {b"pre:1 own"}
        assert names_on(target, db) == chosen | own
    report = compare(source, target, selection)
    extra = sum(expected(key, kind, db) for key, kind, db in ((b"own", b"string", 0), (b"pre:1 own", b"hash", 1)))
    assert (report.extra, report.different) == (extra, extra)


LETTERS = "ab*?[]^-\\\x00"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pattern=st.text(LETTERS, max_size=8).map(str.encode),
    key=st.text(LETTERS, max_size=6).map(str.encode),
)
def test_patterns_are_those_of_the_server(server_pool: Pool, pattern: bytes, key: bytes) -> None:
    if "pattern" not in _SERVERS:
        _SERVERS["pattern"] = server_pool.get("redis-7.0").client(single_connection_client=True)
    client = _SERVERS["pattern"]
    client.execute_command("FLUSHALL")
    client.execute_command("SET", key, 1)
    found = client.execute_command("SCAN", "0", "MATCH", pattern)[1] == [key]
    assert (compile_pattern(pattern).fullmatch(key) is not None) == found


@pytest.mark.parametrize("flavour", ["redis-6.2", "redis-7.0", "redis-8.2", "valkey-8.1", "valkey-9.1"])
def test_an_empty_name_matches_one_star_only(server_pool: Pool, flavour: str) -> None:
    server = server_pool.get(flavour)
    server.call("SET", "", 1)
    for pattern in (b"", b"*", b"**", b"***", b"*?", b"[", b"\\", b"*a*"):
        found = server.call("SCAN", 0, "MATCH", pattern)[1] == [b""]
        assert (compile_pattern(pattern).fullmatch(b"") is not None) == found, pattern


_SERVERS: dict[str, redis.Redis] = {}


@pytest.fixture(autouse=True, scope="module")
def _close_servers() -> Any:
    yield
    for client in _SERVERS.values():
        client.close()
    _SERVERS.clear()


def test_extra_keys_stay_unless_they_are_to_go(two: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = two
    preload(source, 300, short_ttls=False)
    for db in (0, 2):
        target.call("SET", "extra", "x", db=db)
    replicate(source, target, tmp_path, allow_non_empty=True)
    assert {(each.db, each.key) for each in compare_servers(source, target)} == {(0, b"extra"), (2, b"extra")}
    status = replicate(source, target, tmp_path, allow_non_empty=True, delete_extra=True)
    assert status["deleted"] == 2
    assert_equal_servers(source, target)


def test_functions(server_pool: Pool, tmp_path: Path) -> None:
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-9.1")
    source.call("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 7 end)")
    source.call("SET", "k", 1)
    replicate(source, target, tmp_path)
    assert target.call("FCALL", "f", 0) == 7
    assert compare(source, target).different == 0
    target.call("FUNCTION", "FLUSH")
    report = compare(source, target, fix=True)
    assert (report.missing, report.fixed, target.call("FCALL", "f", 0)) == (1, 1, 7)


def test_functions_that_the_target_cannot_have_are_named(server_pool: Pool, tmp_path: Path) -> None:
    source, target = server_pool.get("redis-7.0"), server_pool.get("redis-6.2")
    source.call("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 7 end)")
    source.call("SET", "k", 1)
    status = replicate(source, target, tmp_path)
    assert status["failed"] == 1 and "1 libraries" in status["failures"][0]
    assert target.call("GET", "k") == b"1"


# -- what fails --------------------------------------------------------------------------------------------------------


def test_a_target_that_is_not_empty(two: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = two
    source.call("SET", "k", 1)
    target.call("SET", "own", 1)
    with pytest.raises(Refused, match="has 1 keys: empty it, or say --allow-non-empty"):
        replicate(source, target, tmp_path)
    assert names_on(target) == {b"own"}


def test_lost_connections(two: tuple[Server, Server], tmp_path: Path) -> None:
    """Either side is cut, many times: every attempt goes on where the last one was for sure."""
    source, target = two
    preload(source, 4000, short_ttls=False)
    with Relay(source) as one, Relay(target) as other:

        async def main() -> None:
            run = replication(one, other, tmp_path, keys_rate=8000.0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.run)
                for number in range(4):
                    seen = run.tally.copied
                    while run.tally.copied < seen + 500 and run.status()["state"] == "running":
                        await trio.sleep(0.005)
                    await trio.to_thread.run_sync((one, other)[number % 2].cut)
            status = run.status()
            assert status["attempts"] > 3 and status["failed"] == 0, status
            assert status["copied"] < 3 * 4000  # it did not begin anew each time

        trio.run(main)
    assert_equal_servers(source, target)


def test_to_copy_the_same_keys_again_is_no_progress(two: tuple[Server, Server], tmp_path: Path) -> None:
    """A target that ends every attempt after some keys: the copy gives up, as its patience says."""
    source, target = two
    source.call("DEBUG", "POPULATE", 3000)
    with Relay(target) as relay:
        run = replication(source, relay, tmp_path, keys_rate=1000.0, patience=0.5)

        async def cut() -> None:
            while True:
                seen = run.tally.copied
                while run.tally.copied < seen + 50:
                    await trio.sleep(0.002)
                await trio.to_thread.run_sync(relay.cut)

        async def main() -> None:
            with trio.fail_after(30):
                async with open_nursery() as nursery:
                    nursery.start_soon(cut)
                    await run.run()

        with pytest.raises(ConnectionLost):
            trio.run(main)
    assert run.status()["attempts"] > 2 and target.call("DBSIZE") < 3000


@pytest.mark.parametrize("side", [pytest.param(0, id="source", marks=pytest.mark.slow), pytest.param(1, id="target")])
def test_a_server_that_hangs(
    two: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    monkeypatch.setattr(pipe, "STALL_S", 0.3)
    preload(two[0], 2000, short_ttls=False)
    run = replication(*two, tmp_path, keys_rate=4000.0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            while run.tally.copied < 300:
                await trio.sleep(0.005)
            two[side].pause()
            try:
                with trio.fail_after(20):
                    while run.status()["attempts"] < 2:
                        await trio.sleep(0.01)
            finally:
                two[side].resume()

    trio.run(main)
    assert_equal_servers(*two)


def test_killed_it_goes_on(two: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = two
    preload(source, 5000, short_ttls=False)
    args = ("replicate", source.url, target.url, "--state-dir", str(tmp_path), "--json")
    with Command(*args, "--rate", "2000") as command:
        until(lambda: list(tmp_path.glob("replicate-*.json")) and target.call("DBSIZE") > 3000, "some keys")
        command.kill()
    result = run_crossfade(*args).done()
    assert "going on from the checkpoint" in result.err
    assert result.json["copied"] < 2 * 5000 and result.json["scanned"] == 5000
    assert_equal_servers(source, target)
    assert not list(tmp_path.glob("replicate-*.json"))


def test_a_source_that_is_restarted(start_server: Callable[..., Server], server_82: Server, tmp_path: Path) -> None:
    """A cursor of the process that was: continued, it would miss keys."""
    source, target = start_server("redis-6.2", config={"appendonly": "yes"}), server_82
    preload(source, 4000, short_ttls=False)
    with Command(
        "replicate", source.url, target.url, "--state-dir", str(tmp_path), "--rate", "3000", "--json"
    ) as command:
        until(lambda: target.call("DBSIZE") > 1500, "some keys")
        source.restart()
        code, _, err = command.wait()
    assert code == 0, err
    assert "the source was restarted" in err and "the copy begins anew" in err
    assert_equal_servers(source, target)


@pytest.mark.slow
def test_a_source_that_comes_back_empty_deletes_nothing(
    start_server: Callable[..., Server], server_82: Server, tmp_path: Path
) -> None:
    source, target = start_server("redis-6.2"), server_82
    preload(source, 4000, short_ttls=False)
    with Command(
        "replicate", source.url, target.url, "--state-dir", str(tmp_path), "--rate", "3000", "--delete-extra"
    ) as command:
        until(lambda: target.call("DBSIZE") > 1500, "some keys")
        source.restart()  # it saves nothing
        code, _, err = command.wait()
    assert code == 4, err
    assert "came back with far fewer keys: nothing is deleted" in err
    assert target.call("DBSIZE") > 1500


@pytest.mark.slow
def test_a_source_that_was_emptied_between_two_runs(
    start_server: Callable[..., Server], server_82: Server, tmp_path: Path
) -> None:
    """The checkpoint remembers how much there was; live mode would delete all of it."""
    source, target = start_server("redis-6.2"), server_82
    preload(source, 1000, short_ttls=False)
    args = ("replicate", source.url, target.url, "--state-dir", str(tmp_path), "--mode", "live")
    with Command(*args) as command:
        until(lambda: target.call("DBSIZE") > 800 and list(tmp_path.glob("replicate-*.json")), "the copy")
        command.kill()
    source.restart()  # it saves nothing
    result = run_crossfade(*args)
    assert result.code == 4 and "nothing is deleted on the target" in result.err, str(result)
    assert target.call("DBSIZE") > 800


def test_source_and_target_mixed_up(two: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = two
    target.call("SET", "k", 1)
    with pytest.raises(Refused, match="are the two mixed up"):
        replicate(source, target, tmp_path, mode=Mode.LIVE, allow_non_empty=True)
    assert target.call("GET", "k") == b"1"


# A process's peak memory begins with that of the one that started it: so a small one does.
LAUNCHER = """
import os, sys
_, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory(two: tuple[Server, Server], tmp_path: Path) -> None:
    """Neither many keys nor huge values: what is under way is bounded in bytes."""
    source, target = two
    source.call("DEBUG", "POPULATE", 200_000, "key", 100)
    with source.client() as client:
        client.set("huge", b"0123456789" * 10_000_000)
        for start in range(0, 300_000, 5000):
            client.sadd("many", *range(start, start + 5000))
        for number in range(300):
            client.set(f"large {number}", b"x" * 1_000_000)
    for command in ("replicate", "compare"):
        words = [*CROSSFADE, command, source.url, target.url, "--state-dir", str(tmp_path), "--json"]
        done = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *words], cwd=ROOT, capture_output=True, check=True)
        assert int(done.stdout.splitlines()[-1]) < 150 * 1024, command
    assert compare(source, target).different == 0


def test_a_target_that_is_full(two: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = two
    preload(source, 4000, short_ttls=False)
    target.call("CONFIG", "SET", "maxmemory", str(target_memory(target) + 300_000))
    args = ("replicate", source.url, target.url, "--state-dir", str(tmp_path), "--json")
    result = run_crossfade(*args, "--patience", "0.5")
    assert result.code == 1 and "OOM command not allowed" in result.err.splitlines()[-1], str(result)
    target.call("CONFIG", "SET", "maxmemory", "0")
    run_crossfade(*args).done()
    assert_equal_servers(source, target)


def target_memory(server: Server) -> int:
    """Of a server that has just been flushed: that may go on in a thread of its own."""
    facts: dict[str, int] = {}

    def freed() -> bool:
        before = facts.get("used_memory", 0)
        lines = (line.partition(":") for line in server.call("INFO", "memory").decode().splitlines())
        facts.update({name: int(value) for name, _, value in lines if value.isdigit()})
        return not facts["lazyfree_pending_objects"] and abs(facts["used_memory"] - before) < 50_000

    until(freed, "the memory of the last test's keys")
    return facts["used_memory"]


def test_a_source_without_memory_usage_or_dump(two: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = two
    preload(source, 500, short_ttls=False)
    source.call("ACL", "SETUSER", "poor", "on", ">x", "~*", "&*", "+@all", "-memory", "-dump", "-config")
    url = source.url.replace("redis://", "redis://poor:x@")
    status = replicate(url, target, tmp_path)
    assert status["failed"] == 0 and len(status["notes"]) == 2, status
    assert_equal_servers(source, target)
    assert compare(url, target).different == 0


def test_wrong_use(
    two: tuple[Server, Server], tmp_path: Path, start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = two
    source.call("SET", "k", 1)
    locked = start_server("redis-6.2", password="right")
    place = ("--state-dir", str(tmp_path / "state"))
    wrong = locked.url.replace("right", "wrong")
    for code, words, text in [
        (2, ("http://x", target.url), "unknown scheme http://"),
        (2, (source.url, target.url, "--slots", "9-5"), "the first before the last"),
        (2, (source.url + "/1", target.url), "must name the same db"),
        (2, (source.url, target.url, "--bandwidth", "much"), "is not a number of bytes"),
        (3, (wrong, target.url), "refused the user name or password"),
        (3, (source.url, "redis://127.0.0.1:1"), "connection refused"),
        (4, (source.url, source.url), "the same server"),
    ]:
        result = run_here(monkeypatch, "replicate", *words, *place)
        assert result.code == code and text in result.err.splitlines()[-1], str(result)
        assert "Traceback" not in result.err and "wrong" not in result.err and not result.out, str(result)
    assert not target.call("DBSIZE") and not (tmp_path / "state").exists()


@pytest.mark.slow
def test_the_same_copy_twice(two: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = two
    preload(source, 2000, short_ttls=False)
    args = ("replicate", source.url, target.url, "--checkpoint", str(tmp_path / "here.json"))
    with Command(*args, "--rate", "100") as command:
        until(lambda: target.call("DBSIZE") > 50, "some keys")
        second = run_crossfade(*args)
        assert second.code == 2 and "is running already" in second.err, str(second)
        code, out, err = command.interrupt()
        assert code == 1 and "not complete: run the same command to go on" in out, err
    other = run_crossfade(*args, "--match", "x*")
    assert other.code == 2 and "is of another copy" in other.err, str(other)
    run_crossfade(*args).done()
    assert_equal_servers(source, target)
