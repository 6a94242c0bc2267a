"""Every type, copied between every pair of versions in both directions, by DUMP where the target accepts it and by
STRUCT always; what arrives is judged by `compare` and, independently, by redis-py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import codec
from backfill.client import Client, command_names
from backfill.codec import Form, Unreadable, WrongType
from backfill.compare import Status, difference
from backfill.scan import databases, scan
from backfill.url import Url
from backfill.values import Hash, Opaque, State, Stream
from tests.backfill.strategies import states
from tests.servers import NAMES, Pool, Server

BINARY = bytes(range(256))
FAR_MS = 4_000_000_000_123  # a deadline in 2096
SOURCE_DB, TARGET_DB = 0, 1  # so that a server can be copied to itself
PAIRS = list(product(NAMES, NAMES))
# Measured: payloads load upward, and after 7.2 only within a product.
ACCEPTED = {
    "redis-6.2": NAMES,
    "redis-7.0": tuple(name for name in NAMES if name != "redis-6.2"),
    "valkey-8.1": ("valkey-8.1", "redis-8.2", "valkey-9.1"),
    "redis-8.2": ("redis-8.2",),
    "valkey-9.1": ("valkey-9.1",),
}


class Side:
    """One db of a server, seen through our client (and, for the tests' own view, through redis-py)."""

    def __init__(self, server: Server, client: Client, known: frozenset[bytes], db: int) -> None:
        self.server, self.client, self.known = server, client, known
        self.view: Any = server.client(db)  # redis-py's types say "str or bytes or awaitable" of everything

    async def attempt(self, key: bytes, form: Form, known: frozenset[bytes]) -> State | Unreadable:
        believed: bytes | WrongType | None = None
        for _ in range(3):  # unknown type, type, fields
            replies = await self.client.transaction(codec.read_commands(key, form, believed, known=known))
            state = codec.parse(key, form, replies, believed)
            if not isinstance(state, WrongType):
                return state
            believed = state
        raise AssertionError(f"{key!r} could not be read in three attempts")

    async def read(self, key: bytes, form: Form = Form.STRUCT, known: frozenset[bytes] | None = None) -> State:
        state = await self.attempt(key, form, self.known if known is None else known)
        assert isinstance(state, State), state
        return state

    async def write(self, state: State, shift_ms: int = 0) -> list[Any]:
        version = self.server.version
        commands = codec.write_commands(state, shift_ms=shift_ms, target=self.known, version=version)
        replies = await self.client.transaction(commands)
        assert isinstance(replies, list), replies
        return replies


@asynccontextmanager
async def open_sides(pool: Pool, source: str, target: str, resp: int = 2) -> AsyncIterator[tuple[Side, Side]]:
    servers = [(pool.get(source), SOURCE_DB), (pool.get(target), TARGET_DB)]
    async with AsyncExitStack() as stack:
        sides = []
        for server, db in servers:
            url = Url(host="127.0.0.1", port=server.port, db=db)
            client = await stack.enter_async_context(Client.open(url, resp=resp, reply_timeout=20))
            sides.append(Side(server, client, command_names(await client.call(b"COMMAND")), db))
            stack.enter_context(sides[-1].view)
        yield sides[0], sides[1]


# --- data: every type, in its small and its large encoding ---


def fill_strings(c: Any) -> None:
    c.set("string", "hello")
    c.set("integer", "12345")
    c.set(b"empty", b"")
    c.set(BINARY, BINARY * 40)
    c.set(b"", b"the key without a name")
    c.set("with ttl", "x", pxat=FAR_MS)
    c.pfadd("hyperloglog", *range(500))
    c.setbit("bitmap", 100_000, 1)
    c.set("pieces", b"0123456789" * 2_000_000)


def fill_lists(c: Any) -> None:
    c.rpush("list", "a", "b", "a", b"", BINARY)
    c.rpush("long list", *(b"item %d" % index for index in range(5000)))
    c.rpush("wide list", b"x" * 100_000, BINARY * 1000)
    c.pexpireat("list", FAR_MS)


def fill_sets(c: Any) -> None:
    c.sadd("intset", 1, 2, -3, 2**63 - 1)
    c.sadd("set", "a", b"", BINARY)
    c.sadd("large set", *(b"member %d" % index for index in range(5000)))


def fill_sorted_sets(c: Any) -> None:
    c.zadd("zset", {"a": 1, "b": 0.1, BINARY: -0.5, "inf": float("inf"), "-inf": float("-inf")})
    c.zadd("numbers", {"tiny": 5e-324, "big": 1.7976931348623157e308, "odd": 1.0000000000000002, "2^53": 2**53 + 2})
    c.zadd("large zset", {b"member %d" % index: index / 7 for index in range(3000)})
    c.geoadd("places", (13.361389, 38.115556, "Palermo"))


def fill_hashes(c: Any) -> None:
    c.hset("hash", mapping={"field": "value", b"": b"", BINARY: BINARY})
    c.hset("large hash", mapping={b"field %d" % index: b"value %d" % index for index in range(3000)})
    c.hset("wide hash", "field", b"x" * 5000)
    c.pexpireat("large hash", FAR_MS)


def fill_streams(c: Any) -> None:
    for index in range(1, 301):
        c.xadd("stream", {b"n": b"%d" % index, b"same": b"x", b"": BINARY}, id=f"{index}-{index % 3}")
    c.xgroup_create("stream", "group", "0")
    c.xgroup_create("stream", BINARY, "$")
    c.xgroup_create("stream", "middle", "150-0")
    c.xgroup_createconsumer("stream", "group", "idle")
    c.xreadgroup("group", "anna", {"stream": ">"}, count=40)
    c.xreadgroup("group", BINARY, {"stream": ">"}, count=30)
    c.xclaim("stream", "group", "anna", 0, ["45-0", "50-2"], retrycount=7)
    c.xack("stream", "group", "3-0", "41-2")
    c.xdel("stream", "5-2", "6-0", "299-2", "300-0")  # two pending, the last two not
    c.pexpireat("stream", FAR_MS)
    c.xadd("plain stream", {"a": "b"}, id="5-5")
    c.xgroup_create("born empty", "group", "0", mkstream=True)
    c.xadd("emptied", {"a": "b"}, id="7-7", maxlen=0, approximate=False)
    c.xgroup_create("no group", "gone", "0", mkstream=True)
    c.xgroup_destroy("no group", "gone")
    for index in range(1, 4):
        c.xadd("all deleted", {"a": "b"}, id=f"{index}-0")
    c.xgroup_create("all deleted", "group", "0")
    c.xreadgroup("group", "anna", {"all deleted": ">"})
    c.xdel("all deleted", "1-0", "2-0", "3-0")
    for name, left in (("trimmed", 5), ("trimmed away", 0)):  # pending, and never deleted; more were read than are left
        for index in range(1, 31):
            c.xadd(name, {"a": "b"}, id=f"{index}-0")
        c.xgroup_create(name, "group", "0")
        c.xreadgroup("group", "anna", {name: ">"}, count=28)
        c.xtrim(name, maxlen=left, approximate=False)


FILLS = (fill_strings, fill_lists, fill_sets, fill_sorted_sets, fill_hashes, fill_streams)


# --- the independent judge ---


def shown(c: Any, key: bytes) -> Any:
    """A key's state as redis-py tells it, without what versions count differently."""
    kind = c.type(key)
    views: dict[bytes, Callable[[], Any]] = {
        b"string": lambda: c.get(key),
        b"list": lambda: c.lrange(key, 0, -1),
        b"set": lambda: set(c.smembers(key)),
        b"zset": lambda: c.zrange(key, 0, -1, withscores=True),
        b"hash": lambda: c.hgetall(key),
        b"stream": lambda: shown_stream(c, key),
    }
    deadline = c.pttl(key)
    return kind, deadline if deadline < 0 else "TTL", views[kind]()


def shown_stream(c: Any, key: bytes) -> Any:
    groups = [
        (
            group["name"],
            group["last-delivered-id"],
            {consumer["name"]: consumer["pending"] for consumer in c.xinfo_consumers(key, group["name"])},
            [
                (entry["message_id"], entry["consumer"], entry["times_delivered"])
                for entry in c.xpending_range(key, group["name"], "-", "+", 10_000)
            ],
        )
        for group in c.xinfo_groups(key)
    ]
    return c.xrange(key), c.xinfo_stream(key)["last-generated-id"], groups


async def assert_equal(source: Side, target: Side) -> None:
    """Both dbs hold the same keys with the same states."""
    keys = sorted(source.view.keys())
    assert sorted(target.view.keys()) == keys
    for key in keys:
        found = difference(await source.read(key), await target.read(key), shift_ms=0, tolerance_ms=20)
        assert found is None, str(found)
        assert shown(source.view, key) == shown(target.view, key), key


# --- copies ---


async def copy_all(source: Side, target: Side, form: Form) -> None:
    async for keys in scan(source.client):
        for key in keys:
            state = await source.read(key, form)
            assert codec.losses(state, target=target.known, version=target.server.version) == ()
            errors = [reply for reply in await target.write(state) if isinstance(reply, Exception)]
            assert errors == [], key


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("source", "target"), PAIRS)
async def test_rebuilt_by_commands_between_all_versions(server_pool: Pool, source: str, target: str, fill: Any) -> None:
    async with open_sides(server_pool, source, target) as (a, b):
        fill(a.view)
        await copy_all(a, b, Form.STRUCT)
        await assert_equal(a, b)


@pytest.mark.parametrize(("source", "target"), [(a, b) for a, b in PAIRS if b in ACCEPTED[a]])
async def test_restored_from_dumps_where_accepted(server_pool: Pool, source: str, target: str) -> None:
    async with open_sides(server_pool, source, target) as (a, b):
        for fill in FILLS:
            fill(a.view)
        await copy_all(a, b, Form.DUMP)
        await assert_equal(a, b)


@pytest.mark.parametrize(("source", "target"), [(a, b) for a, b in PAIRS if b not in ACCEPTED[a]])
async def test_refused_dumps_are_recognised(server_pool: Pool, source: str, target: str) -> None:
    async with open_sides(server_pool, source, target) as (a, b):
        for fill in FILLS:
            fill(a.view)
        for key in a.view.scan_iter():
            (reply,) = await b.write(await a.read(key, Form.DUMP))
            assert codec.refused(reply), reply
        assert await databases(b.client) == {SOURCE_DB: 22} if a.server is b.server else not await databases(b.client)


@pytest.mark.parametrize("name", NAMES)
async def test_both_protocol_versions_show_the_same_state(server_pool: Pool, name: str) -> None:
    with server_pool.get(name).client() as view:
        for fill in FILLS:
            fill(view)
        keys = view.keys()
    server = server_pool._servers[name]
    url = Url(host="127.0.0.1", port=server.port)
    async with Client.open(url) as two, Client.open(url, resp=3) as three:
        known = command_names(await two.call(b"COMMAND"))
        assert known == command_names(await three.call(b"COMMAND"))
        sides = [Side(server, client, known, SOURCE_DB) for client in (two, three)]
        for key in keys:
            for form in Form:
                a, b = [await side.read(key, form) for side in sides]
                assert (a.kind, a.value, a.payload, a.size) == (b.kind, b.value, b.payload, b.size)


@pytest.mark.parametrize("name", NAMES)
async def test_the_kind_of_a_payload_is_its_type(server_pool: Pool, name: str) -> None:
    async with open_sides(server_pool, name, name) as (side, _):
        for fill in FILLS:
            fill(side.view)
        for key in side.view.scan_iter():
            assert (await side.read(key, Form.DUMP)).kind == side.view.type(key), key


# --- what is overwritten, deadlines, clocks ---


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("name", NAMES)
async def test_a_copy_replaces_whatever_was_there(server_pool: Pool, name: str, form: Form) -> None:
    async with open_sides(server_pool, name, name) as (a, b):
        for fill in FILLS:
            a.view.flushall()
            fill(a.view)
            for key in a.view.scan_iter():
                b.view.hset(key, mapping={"b.view": "value"})
                b.view.expire(key, 1000)
            await copy_all(a, b, form)
            await assert_equal(a, b)


@pytest.mark.parametrize("form", Form)
async def test_a_missing_key_is_deleted(server_pool: Pool, form: Form) -> None:
    async with open_sides(server_pool, "redis-6.2", "redis-8.2") as (a, b):
        b.view.set("k", "v")
        state = await a.read(b"k", form)
        assert state.missing
        assert await b.write(state) == [1]


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("name", NAMES)
async def test_deadlines_arrive_to_the_millisecond_moved_by_the_clock_difference(
    server_pool: Pool, name: str, form: Form
) -> None:
    async with open_sides(server_pool, name, name) as (a, b):
        for fill in FILLS:
            fill(a.view)
        keys = [key for key in a.view.scan_iter() if a.view.pttl(key) > 0]
        for key in keys:
            state = await a.read(key, form)
            slack = 0 if b"PEXPIRETIME" in a.known else 20
            assert state.deadline_ms == pytest.approx(FAR_MS, abs=slack)
            assert state.read_ms == pytest.approx((await a.read(key, Form.STRUCT)).read_ms, abs=5000)
            await b.write(state, shift_ms=-4321)
            there = await b.read(key)
            assert there.deadline_ms == pytest.approx(FAR_MS - 4321, abs=2 * slack)
            at = await a.read(key), there
            assert difference(*at, shift_ms=-4321, tolerance_ms=2 * slack) is None
            found = difference(*at, shift_ms=0, tolerance_ms=4300)
            assert found is not None
            assert found.status is Status.TTL


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("name", NAMES)
async def test_a_deadline_that_has_passed_leaves_no_key(server_pool: Pool, name: str, form: Form) -> None:
    async with open_sides(server_pool, name, name) as (a, b):
        for key, fill in (("with ttl", fill_strings), ("list", fill_lists), ("stream", fill_streams)):
            fill(a.view)
            b.view.set(key, "old")
            await b.write(await a.read(key.encode(), form), shift_ms=-FAR_MS)
            assert b.view.exists(key) == 0


@pytest.mark.parametrize("name", NAMES)
def test_any_state_can_be_written_and_read_back(server_pool: Pool, name: str) -> None:
    server = server_pool.get(name)

    @settings(max_examples=60)
    @given(st.lists(states(), min_size=1, max_size=8))
    def run(drawn: list[State]) -> None:
        trio.run(exchange, drawn)

    async def exchange(drawn: list[State]) -> None:
        async with Client.open(Url(host="127.0.0.1", port=server.port)) as client:
            side = Side(server, client, command_names(await client.call(b"COMMAND")), SOURCE_DB)
            for state in drawn:
                if isinstance(state.value, Opaque):
                    continue
                state = without_field_deadlines(state) if b"HPEXPIREAT" not in side.known else state
                errors = [reply for reply in await side.write(state) if isinstance(reply, Exception)]
                assert errors == []
                found = difference(state, await side.read(b"k"), shift_ms=0, tolerance_ms=20)
                assert found is None, str(found)

    run()


def without_field_deadlines(state: State) -> State:
    return replace(state, value=Hash(state.value.fields)) if isinstance(state.value, Hash) else state


# --- streams ---


@pytest.mark.parametrize(("source", "target"), PAIRS)
async def test_stream_counters_and_deliveries(server_pool: Pool, source: str, target: str) -> None:
    """What `compare` leaves out: counters where both have them, delivery times, the next XADD and XREADGROUP."""
    async with open_sides(server_pool, source, target) as (a, b):
        fill_streams(a.view)
        await copy_all(a, b, Form.STRUCT)
        for key in a.view.scan_iter():
            here, there = [(await side.read(key)).value for side in (a, b)]
            assert isinstance(here, Stream) and isinstance(there, Stream)
            assert [group.pending for group in here.groups] == [group.pending for group in there.groups]
            if min(a.server.version[1], b.server.version[1]) >= 7:
                assert here == there
            views = a.view, b.view
            assert len({side.xadd(key, {"next": "one"}, id=f"{FAR_MS}-1") for side in views}) == 1
            for group in here.groups:
                read = [side.xreadgroup(group.name, "new", {key: ">"}) for side in views]
                assert read[0] == read[1]


async def test_pending_ids_that_only_6_2_can_hold_are_named(server_pool: Pool) -> None:
    async with open_sides(server_pool, "redis-6.2", "redis-7.0") as (a, b):
        a.view.xadd("s", {"a": "b"}, id="1-0")
        a.view.xadd("s", {"a": "b"}, id="9-0")
        a.view.xgroup_create("s", "g", "0")
        a.view.xreadgroup("g", "anna", {"s": ">"})
        a.view.xdel("s", "9-0")
        a.view.execute_command("XSETID", "s", "5-0")
        state = await a.read(b"s")
        (loss,) = codec.losses(state, target=b.known, version=b.server.version)
        assert "1 pending entries" in loss
        assert not any(isinstance(reply, Exception) for reply in await b.write(state))
        found = difference(state, await b.read(b"s"), shift_ms=0, tolerance_ms=0)
        assert found is not None
        assert "pending entry '9-0' only on the source" in found.detail

        assert codec.losses(state, target=a.known, version=a.server.version) == ()
        await a.write(state)
        assert difference(state, await a.read(b"s"), shift_ms=0, tolerance_ms=0) is None


# --- deadlines of hash fields ---

FIELD_TTL_PAIRS = [(a, b) for a, b in product(("redis-8.2", "valkey-9.1"), repeat=2)]


def fill_field_ttls(c: Any) -> None:
    c.hset("small", mapping={"a": "1", "b": "2", BINARY: "3"})
    c.hset("large", mapping={b"field %d" % index: b"%d" % index for index in range(2500)})
    for key, fields in (("small", ["a", BINARY]), ("large", [b"field %d" % index for index in range(2200)])):
        c.execute_command("HPEXPIREAT", key, FAR_MS, "FIELDS", len(fields), *fields)
    c.execute_command("HPEXPIREAT", "small", FAR_MS + 1, "FIELDS", 1, "b")


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize(("source", "target"), FIELD_TTL_PAIRS)
async def test_field_deadlines(server_pool: Pool, source: str, target: str, form: Form) -> None:
    if form is Form.DUMP and target not in ACCEPTED[source]:
        pytest.skip("such payloads are refused there")
    async with open_sides(server_pool, source, target) as (a, b):
        fill_field_ttls(a.view)
        fill_hashes(a.view)
        await copy_all(a, b, form)
        await assert_equal(a, b)
        small = (await b.read(b"small")).value
        assert isinstance(small, Hash)
        assert small.deadlines == {b"a": FAR_MS, b"b": FAR_MS + 1, BINARY: FAR_MS}
        b.view.execute_command("HPERSIST", "large", "FIELDS", "1", "field 77")
        found = difference(await a.read(b"large"), await b.read(b"large"), shift_ms=0, tolerance_ms=0)
        assert found is not None
        assert (found.status, found.detail) == (Status.TTL, "field 'field 77' expires only on the source")


async def test_field_deadlines_that_the_target_cannot_hold_are_named(server_pool: Pool) -> None:
    async with open_sides(server_pool, "redis-8.2", "redis-6.2") as (a, b):
        fill_field_ttls(a.view)
        state = await a.read(b"small")
        assert "3 hash fields" in codec.losses(state, target=b.known, version=b.server.version)[0]
        await b.write(state)
        assert b.view.hgetall("small") == a.view.hgetall("small")


async def test_fields_that_appear_between_the_reads_are_asked_for(server_pool: Pool) -> None:
    async with open_sides(server_pool, "valkey-9.1", "redis-8.2") as (a, _):
        a.view.hset("h", mapping={"a": "x" * 100})
        first = await a.client.transaction(codec.read_commands(b"h", Form.STRUCT, b"hash", known=a.known))
        again = codec.parse(b"h", Form.STRUCT, first, b"hash")
        assert again == WrongType(b"hash", (b"a",))
        a.view.hset("h", "new", "field")
        second = await a.client.transaction(codec.read_commands(b"h", Form.STRUCT, again, known=a.known))
        third = codec.parse(b"h", Form.STRUCT, second, again)
        assert isinstance(third, WrongType)
        assert set(third.fields) == {b"a", b"new"}


# --- the rest ---


async def test_vector_sets_are_carried_as_payloads(server_pool: Pool) -> None:
    async with open_sides(server_pool, "redis-8.2", "redis-8.2") as (a, b):
        a.view.execute_command("VADD", "v", "VALUES", "3", "1", "2", "3", "element")
        state = await a.read(b"v")
        assert state.kind == b"vectorset"
        await b.write(state)
        assert difference(state, await b.read(b"v"), shift_ms=0, tolerance_ms=0) is None
        assert b.view.execute_command("VCARD", "v") == 1


@pytest.mark.parametrize("believed", [b"string", b"list", b"set", b"zset", b"hash", b"stream", b"vectorset"])
@pytest.mark.parametrize("name", ["redis-6.2", "redis-8.2"])
async def test_a_wrong_belief_is_corrected(server_pool: Pool, name: str, believed: bytes) -> None:
    keys = {"string": fill_strings, "list": fill_lists, "set": fill_sets, "zset": fill_sorted_sets}
    keys |= {"hash": fill_hashes, "stream": fill_streams}
    async with open_sides(server_pool, name, name) as (side, _):
        for key, fill in keys.items():
            fill(side.view)
            if key.encode() == believed:
                continue
            commands = codec.read_commands(key.encode(), Form.STRUCT, believed, known=side.known)
            parsed = codec.parse(key.encode(), Form.STRUCT, await side.client.transaction(commands), believed)
            assert isinstance(parsed, WrongType), (key, parsed)
            assert parsed.actual == key.encode()


async def test_a_read_that_an_acl_forbids_has_a_reason(server_pool: Pool) -> None:
    async with open_sides(server_pool, "redis-7.0", "redis-7.0") as (side, _):
        side.view.set("k", "v")
        side.server.call("ACL", "SETUSER", "default", "-dump", "-restore", "-get")
        try:
            # Refused when queued, so the whole transaction fails.
            reply = await side.client.transaction(codec.read_commands(b"k", Form.DUMP))
            assert "EXECABORT" in str(reply)
            unqueued = await side.client.pipeline(codec.read_commands(b"k", Form.DUMP))
            parsed = codec.parse(b"k", Form.DUMP, unqueued)
            assert isinstance(parsed, Unreadable)
            assert "NOPERM" in parsed.reason
            assert codec.refused(await side.client.call(b"RESTORE", b"k", b"0", b"x"))
        finally:
            side.server.call("ACL", "SETUSER", "default", "+@all")
