"""The load itself: it sends what it promises, finds what is wrong, and finds nothing on a sound server."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import trio

from backfill.embedded import TlsFiles
from tests.equality import compare_servers
from tests.servers import NAMES, Pool, Server, tls_capable
from tests.traffic import Traffic, preload
from tests.traffic.ledger import Ledger
from tests.traffic.templates import TEMPLATES, Filler, parse
from tests.traffic.traffic import GROUPS

Start = Callable[..., Server]
# What must have been sent in some seconds, whatever the seed.
ALWAYS = """
INCR INCRBYFLOAT APPEND SETRANGE BITFIELD LPUSH RPOP LMOVE LTRIM LINSERT SADD SPOP SMOVE SUNIONSTORE ZADD ZINCRBY
ZPOPMIN ZUNIONSTORE HSET XADD XREADGROUP XACK XCLAIM XAUTOCLAIM SET EXPIRE GETEX PERSIST RENAME COPY EVAL EVALSHA
SCRIPT MULTI EXEC DISCARD WATCH BLPOP BLMOVE BZPOPMIN SELECT HELLO EXECABORT
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_server_gives_no_finding_and_sees_every_kind_of_command(server_pool: Pool, name: str) -> None:
    server = server_pool.get(name)
    with Traffic(server, seed=7, clients=12, rate=None) as traffic:
        traffic.wait_for(12_000)
    traffic.assert_clean()
    found = traffic.statistics()
    assert not set(ALWAYS.split()).difference(found.by_name)
    assert found.checks > 100 and found.expected_errors > 100 and found.disconnects == 0
    sides = {int(db.removeprefix("db")) for db in server.client().info("keyspace")}
    assert sides == {0, 1}
    known = {"BLMPOP", "HPEXPIRE"}.intersection(found.by_name)
    assert known == {"redis-6.2": set(), "redis-7.0": {"BLMPOP"}, "valkey-8.1": {"BLMPOP"}}.get(
        name, {"BLMPOP", "HPEXPIRE"}
    )


def test_a_seed_draws_the_same_commands() -> None:
    lines = [line for _, text in TEMPLATES.values() for line in parse(text)]

    def draw(seed: int) -> list[list[bytes]]:
        filler = Filler(Random(seed))
        return [filler.fill(line) for line in lines]

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_runs_alone(server_62: Server, group: str) -> None:
    with Traffic(server_62, only=[group], clients=4, rate=None) as traffic:
        traffic.wait_for(50)
    traffic.assert_clean()
    with pytest.raises(ValueError, match="no such groups"):
        Traffic(server_62, without=["nonsense"])


async def test_it_runs_inside_trio_as_well(server_91: Server) -> None:
    traffic = Traffic(server_91, clients=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.run)
        await trio.to_thread.run_sync(traffic.wait_for, 100)
        statistics = await traffic.finish()
    assert statistics.commands >= 100
    traffic.assert_clean()


def test_two_at_once_with_prefixes(server_62: Server) -> None:
    with Traffic(server_62, prefix="a:") as one, Traffic(server_62, prefix="b:", seed=2) as other:
        one.wait_for(300)
        other.wait_for(300)
    one.assert_clean()
    other.assert_clean()


def test_with_password_and_tls(start_server: Start, tls_files: TlsFiles) -> None:
    if not tls_capable():
        pytest.skip("no server built with TLS found")
    server = start_server(tls_capable()[0], password="p@ss", tls=tls_files)
    assert preload(server, 100) > 100
    with Traffic(server, clients=3) as traffic:
        traffic.wait_for(200)
    traffic.assert_clean()


def test_lost_connections_are_findings_unless_tolerated(start_server: Start) -> None:
    for tolerate in (False, True):
        server = start_server("redis-6.2", config={"appendonly": "yes", "appendfsync": "always"})
        with Traffic(server, clients=4, tolerate_disconnects=tolerate) as traffic:
            traffic.wait_for(100)
            server.kill()
            server.start()
            traffic.wait_for(100)
        found = traffic.statistics()
        assert found.disconnects > 0
        assert (found.unexpected == 0) is tolerate, found.findings
        if not tolerate:
            with pytest.raises(AssertionError, match="connection"):
                traffic.assert_clean()


def test_a_paused_server_shows_as_the_longest_wait(start_server: Start) -> None:
    server = start_server("redis-6.2")
    with Traffic(server, clients=4, rate=200) as traffic:
        traffic.wait_for(100)
        traffic.reset_longest()
        server.call("CLIENT", "PAUSE", "300", "ALL")
        traffic.wait_for(100)
    assert traffic.statistics().longest_ms > 150
    traffic.assert_clean()


SABOTAGES = {
    "a value of one's own": (["SET", "chk:own:0:value", "other"], "GET (0, 'chk:own:0:value'): expected"),
    "a counter of one's own": (["INCR", "chk:own:0:counter"], "INCR (0, 'chk:own:0:counter'): expected"),
    "a lost increment": (["DECR", "chk:total"], "two clients got the same"),
    "a lost update": (["INCRBY", "chk:watched", "5"], "committed WATCH transactions in db 0"),
    "an invented job": (["RPUSH", "chk:jobs", "invented"], "jobs came that nobody sent"),
    "an unknown error": (["CONFIG", "SET", "maxmemory", "1"], "OOM command not allowed"),
}


@pytest.mark.parametrize(("command", "text"), SABOTAGES.values(), ids=SABOTAGES.keys())
def test_wrong_data_are_found(start_server: Start, command: list[str], text: str) -> None:
    server = start_server("redis-6.2")
    with Traffic(server, clients=2, rate=2000, only=["checked", "watch"], dbs=(0,)) as traffic:
        traffic.wait_for(300)
        server.call(*command)
        traffic.wait_for(500)
    findings = traffic.statistics().findings
    assert any(text in finding for finding in findings), findings


def test_jobs_that_vanish_or_come_twice_are_found(server_62: Server) -> None:
    ledger = Ledger(tolerate_disconnects=False)
    ledger.pop("someone", b"job")
    assert ledger.findings == []
    ledger.pop("someone", b"job")
    assert "delivered twice" in ledger.findings[0]
    with Traffic(server_62, only=["checked"], dbs=(0,), clients=2, rate=None) as traffic:
        traffic.wait_for(200)
        server_62.call("CLIENT", "PAUSE", "50", "ALL")
        server_62.call("LTRIM", "chk:jobs", "1", "0")
        traffic._ledger.pushed.add(b"gone")
    assert any("jobs were lost" in finding for finding in traffic.statistics().findings)


def test_preload_writes_every_type_in_two_dbs(server_62: Server) -> None:
    commands = preload(server_62, 3000, seed=5)
    assert commands > 3000
    main, other = server_62.client(), server_62.client(db=1)
    assert (main.dbsize(), other.dbsize()) == (2700, 300)
    keys = list(main.scan_iter(count=1000))
    with main.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.type(key)
            pipeline.pttl(key)
        replies = pipeline.execute()
    assert set(replies[::2]) == {b"string", b"list", b"set", b"zset", b"hash", b"stream"}
    expiring = [ttl for ttl in replies[1::2] if ttl != -1]
    assert 400 < len(expiring) < 750 and min(expiring) <= 20_000
    assert any(b"\r\n" in key for key in keys)
    streams = [key for key, kind in zip(keys, replies[::2], strict=True) if kind == b"stream"]
    groups = [group for key in streams for group in main.xinfo_groups(key)]
    assert sum(group["pending"] for group in groups) > 50


def test_preload_gives_the_same_data_for_a_seed(server_62: Server, server_91: Server) -> None:
    for server in (server_62, server_91):
        preload(server, 1000, seed=3, short_ttls=False)
    assert compare_servers(server_62, server_91, ttl_tolerance_ms=30_000) == []
    server_91.clean()
    preload(server_91, 1000, seed=4, short_ttls=False)
    assert len(compare_servers(server_62, server_91)) > 50


@pytest.mark.parametrize(("other", "left"), [("redis-6.2", set()), ("redis-7.0", {"LMPOP"})])
def test_only_what_another_server_knows_too(server_pool: Pool, server_82: Server, other: str, left: set[str]) -> None:
    also = server_pool.get(other)
    with Traffic(server_82, seed=9, only=("lists", "hashes"), rate=None, also_known_to=also) as traffic:
        traffic.wait_for(2000)
    traffic.assert_clean()
    assert {"LMPOP", "HPEXPIRE", "HPERSIST"}.intersection(traffic.statistics().by_name) == left
