"""The judge is judged: every kind of difference is found, between every pair of versions, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest
import redis

from tests.equality import (
    Options,
    Reader,
    Reading,
    What,
    assert_equal_servers,
    compare_readings,
    compare_servers,
)
from tests.servers import Pool, Server

OLDEST, NEWEST = "redis-6.2", "valkey-9.1"
PAIRS = [(OLDEST, NEWEST), (NEWEST, OLDEST), (OLDEST, "redis-8.2"), ("redis-7.0", "valkey-8.1")]
FAR = "4102444800000"  # the year 2100 in ms

BASE = """
SET text hello
SET deadline v PXAT 4102444800000
SETRANGE binary 3 tail
PFADD hll a b c
RPUSH list a b c
SADD set a b c
SADD numbers 1 2 3
ZADD zset 0.1 a 1e100 b -inf c
HSET hash f 1 g 2
XADD stream 1-1 f v
XADD stream 2-1 f v
XADD stream 3-1 f v
XDEL stream 3-1
XADD stream 4-1 f v
XGROUP CREATE stream workers 0
XREADGROUP GROUP workers alice COUNT 1 STREAMS stream >
XREADGROUP GROUP workers bob COUNT 1 STREAMS stream >
XGROUP CREATE stream idle $
XADD gone 5-0 f v
XDEL gone 5-0
"""


def run(server: Server, script: str, db: int = 0) -> None:
    with server.client(db=db) as client:
        client.response_callbacks.clear()
        for line in script.strip().splitlines():
            try:
                client.execute_command(*line.split())
            except redis.ResponseError as error:
                raise AssertionError(f"{server}: {line}: {error}") from error


@pytest.fixture(params=PAIRS, ids="_to_".join)
def pair(request: pytest.FixtureRequest, server_pool: Pool) -> tuple[Server, Server]:
    a, b = (server_pool.get(name) for name in request.param)
    for server in (a, b):
        run(server, BASE)
        run(server, "SET elsewhere v", db=9)
    return a, b


def test_equal_servers_of_any_versions_are_equal(pair: tuple[Server, Server]) -> None:
    assert compare_servers(*pair) == []
    assert_equal_servers(*pair, ttl_tolerance_ms=10, empty_consumers=True, deleted_pending=True)


DIFFERENCES: list[tuple[str, What, str]] = [
    ("DEL text", What.MISSING, "a string on a, nothing on b"),
    ("SET more v", What.EXTRA, "nothing on a, a string on b"),
    ("COPY text set REPLACE", What.TYPE, "set on a, string on b"),
    ("SET text hellO", What.VALUE, "differs at byte 4 (5 and 5 bytes)"),
    ("APPEND text !", What.VALUE, "differs at byte 5 (5 and 6 bytes)"),
    ("SETBIT binary 0 1", What.VALUE, r"b'\x00\x00\x00tail' on a"),
    ("PFADD hll other", What.VALUE, "string differs"),
    ("LSET list 1 B", What.VALUE, "differs at index 1 (3 and 3 items): b'b' on a, b'B' on b"),
    ("RPUSH list d", What.VALUE, "index 3 (3 and 4 items): nothing on a, b'd' on b"),
    ("LMOVE list list LEFT RIGHT", What.VALUE, "index 0"),
    ("SREM set b", What.VALUE, "only on a: [b'b'], only on b: []"),
    ("SADD numbers 4", What.VALUE, "only on a: [], only on b: [b'4']"),
    ("ZADD zset 0.10000000000000002 a", What.VALUE, "members: b'a': 0.1 on a, 0.10000000000000002 on b"),
    ("ZREM zset c", What.VALUE, "only on a: [b'c']"),
    ("HSET hash f 2", What.VALUE, "fields: b'f'"),
    ("HDEL hash g", What.VALUE, "fields only on a: [b'g']"),
    ("PERSIST deadline", What.TTL, "on a, no expiry on b"),
    ("PEXPIREAT text 4102444800000", What.TTL, "no expiry on a"),
    ("PEXPIREAT deadline 4102444802000", What.TTL, "until 4102444802000"),
    ("XADD stream 9-1 f v", What.VALUE, "entries differs at index 3"),
    ("XDEL stream 4-1", What.VALUE, "entries differs at index 2"),
    ("XSETID stream 99-0", What.VALUE, "last-generated-id: b'4-1' on a, b'99-0' on b"),
    ("XGROUP DESTROY stream idle", What.VALUE, "groups: [b'idle', b'workers'] on a"),
    ("XGROUP SETID stream idle 1-1", What.VALUE, "group b'idle': last-delivered-id"),
    ("XACK stream workers 1-1", What.VALUE, "pending entries only on a: [b'1-1']"),
    ("XCLAIM stream workers alice 0 2-1 JUSTID", What.VALUE, "pending entries: b'2-1': (b'bob', 1) on a, (b'alice'"),
    ("XCLAIM stream workers bob 0 2-1 RETRYCOUNT 7", What.VALUE, "(b'bob', 1) on a, (b'bob', 7) on b"),
    ("DEL gone", What.MISSING, "a stream on a"),
]


@pytest.mark.parametrize(("change", "what", "detail"), DIFFERENCES, ids=[change for change, *_ in DIFFERENCES])
def test_each_kind_of_difference_is_found(server_pool: Pool, change: str, what: What, detail: str) -> None:
    a, b = (server_pool.get(name) for name in (OLDEST, NEWEST))
    for server in (a, b):
        run(server, BASE)
    run(b, change)
    found = compare_servers(a, b)
    assert [difference.what for difference in found] == [what], found
    assert detail in str(found[0])
    assert len(compare_servers(b, a)) == 1  # seen from the other side as well


def test_a_difference_names_db_and_key(pair: tuple[Server, Server]) -> None:
    a, b = pair
    run(b, "SET elsewhere w", db=9)
    (found,) = compare_servers(a, b)
    assert (found.db, found.key, found.what) == (9, b"elsewhere", What.VALUE)
    assert str(found).startswith("db 9 key b'elsewhere': value: string differs")
    assert compare_servers(a, b, dbs=[0]) == []


def test_a_db_that_one_side_only_has_is_found(pair: tuple[Server, Server]) -> None:
    a, b = pair
    run(b, "FLUSHDB", db=9)
    assert [found.what for found in compare_servers(a, b)] == [What.MISSING]
    assert [found.what for found in compare_servers(b, a)] == [What.EXTRA]


def test_the_number_of_differences_is_limited(server_62: Server, server_91: Server) -> None:
    run(server_62, "DEBUG POPULATE 1500")
    assert len(compare_servers(server_62, server_91)) == 100
    assert len(compare_servers(server_62, server_91, limit=10**6)) == 1500
    with pytest.raises(AssertionError, match="100 differences:\ndb 0 key b'key:0': missing"):
        assert_equal_servers(server_62, server_91)


def test_urls_do_as_well_as_servers(server_62: Server, server_91: Server) -> None:
    run(server_62, "SET k v")
    assert len(compare_servers(server_62.url, server_91.url)) == 1


def test_tolerance_of_deadlines(server_62: Server, server_91: Server) -> None:
    run(server_62, f"SET k v PXAT {FAR}")
    run(server_91, f"SET k v PXAT {int(FAR) + 50}")
    assert compare_servers(server_62, server_91, ttl_tolerance_ms=60) == []
    assert len(compare_servers(server_62, server_91, ttl_tolerance_ms=40)) == 1


def test_a_key_about_to_expire_may_be_gone_on_one_side(server_62: Server, server_91: Server) -> None:
    run(server_62, "SET k v PX 900")
    assert compare_servers(server_62, server_91, ttl_tolerance_ms=1000) == []
    assert compare_servers(server_91, server_62, ttl_tolerance_ms=1000) == []
    run(server_62, "SET k v PX 60000")
    assert len(compare_servers(server_62, server_91, ttl_tolerance_ms=1000)) == 1


def test_the_cached_count_of_a_hyperloglog_is_no_difference(server_62: Server, server_91: Server) -> None:
    for server in (server_62, server_91):
        run(server, "PFADD h a b c\nPFADD h d")
    run(server_91, "PFCOUNT h")
    assert server_62.client().get("h") != server_91.client().get("h")
    assert compare_servers(server_62, server_91) == []


def test_field_deadlines_of_hashes(server_82: Server, server_91: Server) -> None:
    for server in (server_82, server_91):
        run(server, f"HSET h f 1 g 2\nHPEXPIREAT h {FAR} FIELDS 1 f")
    assert compare_servers(server_82, server_91) == []
    run(server_91, f"HPEXPIREAT h {int(FAR) + 5000} FIELDS 1 f")
    (found,) = compare_servers(server_82, server_91)
    assert found.what is What.VALUE and "fields: b'f'" in str(found)
    run(server_91, "HPERSIST h FIELDS 1 f")
    assert len(compare_servers(server_82, server_91)) == 1


def test_a_field_about_to_expire_may_be_gone_on_one_side(server_82: Server, server_91: Server) -> None:
    run(server_82, "HSET h f 1 g 2\nHPEXPIRE h 900 FIELDS 1 f\nHSET whole f 1\nHPEXPIRE whole 900 FIELDS 1 f")
    run(server_91, "HSET h g 2")
    assert compare_servers(server_82, server_91, ttl_tolerance_ms=1000) == []
    assert len(compare_servers(server_82, server_91, ttl_tolerance_ms=1)) == 2


LENIENT = {"stream_counters": False}
OPTIONAL: list[tuple[str, str, dict[str, Any], str]] = [
    ("redis-7.0", "XSETID stream 4-1 ENTRIESADDED 77", LENIENT, "entries-added: 4 on a, 77 on b"),
    ("redis-8.2", "XGROUP SETID stream idle 4-1 ENTRIESREAD 2", LENIENT, "entries-read: None on a, 2 on b"),
    ("redis-6.2", "XGROUP CREATECONSUMER stream workers carol", {}, "consumers only on a: [], only on b: [b'carol']"),
]


@pytest.mark.parametrize(("name", "change", "lenient", "detail"), OPTIONAL, ids=[change for _, change, *_ in OPTIONAL])
def test_what_options_decide(server_pool: Pool, name: str, change: str, lenient: dict[str, Any], detail: str) -> None:
    a, b = (server_pool.get(each) for each in (name, NEWEST))
    for server in (a, b):
        run(server, BASE)
    run(b, change)
    (found,) = compare_servers(a, b, empty_consumers=True)
    assert detail in str(found)
    assert compare_servers(a, b, **lenient) == []


TRIMMED_UNREAD = """\
XADD s 1-0 a b
XADD s 2-0 a b
XADD s 3-0 a b
XGROUP CREATE s g 0
XREADGROUP GROUP g anna COUNT 1 STREAMS s >
XTRIM s MAXLEN 1
XREADGROUP GROUP g anna COUNT 1 STREAMS s >
"""


def test_what_groups_have_read_is_compared_where_both_count_alike(server_pool: Pool) -> None:
    """The same commands, and no difference of ours: seen under traffic from 7.0 to 9.1, with no connection lost."""
    servers = [server_pool.get(name) for name in ("redis-7.0", "redis-8.2", "valkey-8.1", "valkey-9.1")]
    counts = []
    for server in servers:
        run(server, TRIMMED_UNREAD)
        (group,) = server.client().xinfo_groups("s")
        counts.append(group["entries-read"])
    assert counts == [2, 3, 3, 3]
    assert compare_servers(servers[0], servers[3]) == []
    assert compare_servers(servers[1], servers[3]) == compare_servers(servers[2], servers[3]) == []
    run(servers[3], "XGROUP SETID s g 3-0 ENTRIESREAD 2")
    assert len(compare_servers(servers[1], servers[3])) == 1


def test_pending_ids_of_deleted_entries(server_62: Server, server_91: Server) -> None:
    for server in (server_62, server_91):
        run(server, BASE + "XDEL stream 1-1")
    run(server_91, "XACK stream workers 1-1")
    assert compare_servers(server_62, server_91) == []
    assert len(compare_servers(server_62, server_91, deleted_pending=True)) == 1


def test_a_large_server_is_read_completely(start_server: Callable[..., Server], server_62: Server) -> None:
    other = start_server("redis-6.2")
    for server in (server_62, other):
        run(server, "DEBUG POPULATE 5000")
    run(other, "SETRANGE key:4321 1 X")
    (found,) = compare_servers(server_62, other)
    assert found.key == b"key:4321"


@pytest.mark.parametrize("ttl", [300, 600_000])
def test_a_hash_that_expires_while_it_is_read(server_62: Server, server_91: Server, ttl: int) -> None:
    """Between its fields and their deadlines. On the other side it may still have been there, if only just."""
    for server in (server_62, server_91):
        server.call("HSET", "h", "one", "1", "two", "2")
        server.call("PEXPIRE", "h", ttl)

    class Late(Reader):
        def _with_field_ttls(self, keys: Sequence[bytes], readings: list[Reading]) -> list[Reading]:
            server_91.call("DEL", "h")
            return super()._with_field_ttls(keys, readings)

    with closing(server_62.client()) as a, closing(server_91.client()) as b:
        for client in (a, b):
            client.response_callbacks.clear()
        (here,), (there,) = Reader(a).read([b"h"]), Late(b).read([b"h"])
    found = compare_readings(here, there, Options())
    assert found == (None if ttl == 300 else (What.MISSING, "a hash on a, nothing on b"))
