"""The catalog: routes, lookup in any spelling, and what servers say about their commands."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp import catalog as module
from resp.catalog import Catalog, Route, Spec, server_names, written_keys
from tests.servers import NAMES, Pool

LANE = {Route.READ, Route.WRITE, Route.BLOCKING, Route.CURSOR, Route.SCRIPT, Route.INFO, Route.PUBLISH}


def lookup(call: str, catalog: Catalog | None = None) -> Spec:
    return (catalog or Catalog.default()).lookup(call.encode().split())


# -- routes ---------------------------------------------------------------------------------------------------------

ROUTES: dict[Route, tuple[str, ...]] = {
    Route.READ: (
        "GET k",
        "KEYS *",
        "COMMAND",
        "COMMAND DOCS",
        "DBSIZE",
        "TIME",
        "LASTSAVE",
        "OBJECT ENCODING k",
        "MEMORY USAGE k",
        "LOLWUT",
        "ECHO x",
        "PING",
        "RANDOMKEY",
        "LATENCY LATEST",
        "SLOWLOG GET",
        "SLOWLOG LEN",
        "SCRIPT EXISTS x",
        "FUNCTION LIST",
        "XINFO STREAM k",
        "SORT_RO k",
    ),
    Route.INFO: ("INFO", "INFO server"),
    Route.CURSOR: ("SCAN 0", "HSCAN h 0", "SSCAN s 0", "ZSCAN z 0"),
    Route.SCRIPT: ("EVAL x 0", "EVALSHA x 0", "FCALL f 0"),
    Route.PUBLISH: ("PUBLISH c m", "SPUBLISH c m"),
    Route.WRITE: (
        "SET k v",
        "SORT k STORE d",
        "GEORADIUS k 1 2 3 m",
        "EVAL_RO x 0",
        "FCALL_RO f 0",
        "SCRIPT LOAD x",
        "SCRIPT FLUSH",
        "FUNCTION LOAD x",
        "FUNCTION DELETE x",
        "FUNCTION RESTORE x",
        "FUNCTION FLUSH",
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "MOVE k 1",
        "COPY a b",
        "XGROUP CREATE k g $",
        "PFCOUNT k",
        "GETEX k",
        "RESTORE k 0 x",
    ),
    Route.BLOCKING: (
        "BLPOP k 0",
        "BRPOP k 0",
        "BRPOPLPUSH a b 0",
        "BLMOVE a b LEFT LEFT 0",
        "BLMPOP 0 1 k LEFT",
        "BZPOPMIN k 0",
        "BZPOPMAX k 0",
        "BZMPOP 0 1 k MIN",
        "XREAD STREAMS k 0",
        "XREADGROUP GROUP g c STREAMS k >",
    ),
    Route.TRANSACTION: ("MULTI", "EXEC", "DISCARD", "WATCH k", "UNWATCH"),
    Route.PUBSUB: (
        "SUBSCRIBE c",
        "PSUBSCRIBE c",
        "SSUBSCRIBE c",
        "UNSUBSCRIBE",
        "PUNSUBSCRIBE",
        "SUNSUBSCRIBE",
    ),
    Route.LOCAL: (
        "AUTH x",
        "HELLO 3",
        "SELECT 1",
        "QUIT",
        "RESET",
        "CLIENT ID",
        "CLIENT SETNAME x",
        "CLIENT GETNAME",
        "CLIENT SETINFO LIB-NAME x",
        "CLIENT LIST",
        "CLIENT REPLY OFF",
        "CLIENT UNBLOCK 1",
    ),
    Route.PINNED: (
        "MONITOR",
        "CLIENT TRACKING ON",
        "CLIENT CACHING YES",
        "CONFIG GET x",
        "CONFIG SET x y",
        "READONLY",
        "READWRITE",
        "ASKING",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
        "DEBUG SLEEP 1",
        "DEBUG OBJECT k",
        "SCRIPT KILL",
        "FUNCTION KILL",
        "ACL SETUSER x",
        "ACL WHOAMI",
        "SLOWLOG RESET",
        "MODULE LIST",
        "UNHEARD x",
        "OBJECT UNHEARD k",
        "XGROUP",
    ),
    Route.REFUSED: (
        "REPLICAOF NO ONE",
        "SLAVEOF h 1",
        "PSYNC ? -1",
        "SYNC",
        "REPLCONF x",
        "SHUTDOWN",
        "FAILOVER",
        "CLUSTER FORGET x",
        "CLUSTER FLUSHSLOTS",
        "CLUSTER UNHEARD",
        "MODULE LOAD x",
        "MODULE UNHEARD x",
        "DEBUG RELOAD",
        "DEBUG RESTART",
        "DEBUG SEGFAULT",
        "DEBUG POPULATE 10",
        "MIGRATE h 1 k 0 1",
        "SCRIPT DEBUG YES",
        "CLIENT MAINT_NOTIFICATIONS ON",
    ),
}


@pytest.mark.parametrize(("route", "call"), [(route, call) for route, calls in ROUTES.items() for call in calls])
def test_route(route, call):
    assert lookup(call).route is route


# They change nothing, but their replies tell which scripts are in use.
LOOKED_AT = frozenset([b"EVAL_RO", b"EVALSHA_RO", b"FCALL_RO"])


def test_specs_are_consistent():
    for spec in Catalog.default():
        assert spec.known
        assert spec.name == spec.name.upper()
        assert spec.in_multi == (spec.route in LANE)
        assert bool(spec.refusal) == (spec.route is Route.REFUSED), spec
        assert "\n" not in spec.refusal
        assert spec.writes or spec.route is not Route.WRITE or spec.name in LOOKED_AT, spec
        assert not spec.writes or spec.route is not Route.READ, spec


def test_no_command_is_listed_twice():
    from resp.table import COMMANDS, CONTAINERS

    names = [name for row in COMMANDS for name in row.names.split()] + [container.name for container in CONTAINERS]
    names += [f"{c.name} {name}" for c in CONTAINERS for row in c.rows for name in row.names.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name",
    [
        "AUTH",
        "CLIENT",
        "HELLO",
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH",
        "UNWATCH",
        "SELECT",
        "RESET",
        "SUBSCRIBE",
        "MONITOR",
    ],
)
def test_connection_state_stays_out_of_a_multi_block(name):
    assert not any(spec.in_multi for spec in Catalog.default() if spec.name.split()[0] == name.encode())


def test_refusal_names_the_command_on_one_line():
    spec = Catalog.default().lookup([b"DEBUG", b"x\r\n{0}\xff"])
    assert spec.route is Route.REFUSED
    assert spec.refusal.startswith("DEBUG X??{0}")
    assert spec.refusal.isprintable()
    assert spec.writes
    assert not spec.known


def test_written_keys():
    for call, expected in (("GET k", []), ("SUNIONSTORE d a b", [b"d", b"a", b"b"]), ("UNHEARD k", [])):
        assert written_keys(lookup(call), call.encode().split()) == expected


# -- lookup ---------------------------------------------------------------------------------------------------------


def test_any_spelling_is_found_and_remembered():
    catalog = Catalog.default()
    spec = catalog.by_name[b"GET"]
    assert catalog.by_name[b"get"] is spec
    assert b"gEt" not in catalog.by_name
    assert lookup("gEt k", catalog) is spec
    assert catalog.by_name[b"gEt"] is spec
    assert lookup("xGroup cReate k g $", catalog) is catalog.specs[b"XGROUP CREATE"]


def test_remembered_spellings_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_SPELLINGS", 10)
    catalog = Catalog.default()
    before = len(catalog.by_name)
    for letters in itertools.product(*zip("expire", "EXPIRE", strict=True)):
        assert lookup("".join(letters), catalog).name == b"EXPIRE"
    assert len(catalog.by_name) == before + 10


@pytest.mark.parametrize(
    "args", [[], [b""], [b"UNHEARD", b"x"], [b"\xff\x00"], [b"GET" + b"x" * 1000], [b"OBJECT GET"]]
)
def test_unknown_is_pinned_and_a_write(args):
    catalog = Catalog.default()
    before = len(catalog.by_name)
    spec = catalog.lookup(args)
    assert (spec.route, spec.writes, spec.known, spec.in_multi) == (Route.PINNED, True, False, False)
    assert spec.keys(args) == []
    assert len(spec.name) <= module.MAX_NAME
    assert len(catalog.by_name) == before


def test_unknown_subcommand_keeps_the_place_of_its_key():
    spec = lookup("XGROUP UNHEARD k g")
    assert (spec.name, spec.route, spec.writes, spec.known) == (b"XGROUP UNHEARD", Route.PINNED, True, False)
    assert spec.keys([b"XGROUP", b"UNHEARD", b"k", b"g"]) == [b"k"]


def test_a_container_is_never_a_direct_hit():
    catalog = Catalog.default()
    containers = {spec.name.partition(b" ")[0] for spec in catalog if b" " in spec.name}
    assert len(containers) > 15
    assert containers.isdisjoint(name.upper() for name in catalog.by_name)


def test_catalogs_share_nothing():
    one, other = Catalog.default(), Catalog.default()
    one.by_name[b"GET"].rule = "mine"
    assert other.by_name[b"GET"].rule is None


name_bytes = st.one_of(st.sampled_from(sorted(Catalog.default().specs)), st.binary(max_size=5))


@given(st.lists(name_bytes, max_size=4), st.booleans())
def test_lookup_never_raises(args, split):
    spec = Catalog.default().lookup(b" ".join(args).split() if split else args)
    assert isinstance(spec, Spec)
    assert spec.known or spec.writes


# -- what servers say -----------------------------------------------------------------------------------------------

SCRIPTING = "its flags do not show what a script or function does"
# Flags that differ from `Spec.writes`, and why.
EXPLAINED: dict[bytes, str] = {
    b"EVAL": SCRIPTING,
    b"EVALSHA": SCRIPTING,
    b"FCALL": SCRIPTING,
    b"PFCOUNT": "stores the cached cardinality",
    b"PUBLISH": "mirrored, though it changes no key",
    b"SPUBLISH": "mirrored, though it changes no key",
    b"SCRIPT LOAD": "mirrored, so that EVALSHA works on both sides",
    b"SCRIPT FLUSH": "mirrored, so that EVALSHA fails on both sides",
}
FEWEST = {"redis-6.2": 220, "redis-7.0": 360, "valkey-8.1": 375, "redis-8.2": 390, "valkey-9.1": 395}


@pytest.fixture(params=NAMES)
def described(request, server_pool: Pool) -> tuple[str, Any]:
    return request.param, server_pool.get(request.param).call("COMMAND")


def test_every_command_of_the_servers_is_known(described):
    name, reply = described
    catalog = Catalog.from_command_reply(reply)
    assert len(catalog.server) >= FEWEST[name]
    assert catalog.server == server_names(reply)
    assert not [spec.name for spec in catalog if not spec.known]
    assert catalog.server <= set(catalog.specs)
    assert all(catalog.lookup(called.split()).name == called for called in catalog.server)


def test_flags_agree(described):
    _, reply = described
    catalog = Catalog.default()
    containers = {spec.name.partition(b" ")[0] for spec in catalog if b" " in spec.name}
    for name, entry in module._entries(reply):
        flags, spec = {flag.lower() for flag in entry[2]}, catalog.specs[name]
        if name in containers:
            continue  # 6.2 flags them as a whole, later servers not at all
        assert spec.writes == (b"write" in flags) or name in EXPLAINED, name
        assert not spec.writes or b"readonly" not in flags or name == b"PFCOUNT", name
        assert b"blocking" not in flags or spec.route in (Route.BLOCKING, Route.PINNED), name
        assert b"no_multi" not in flags or not spec.in_multi, name


LOOKING = (b"SLOWLOG", b"COMMANDLOG", b"LATENCY")


def test_the_lane_takes_nothing_administrative(described):
    """Nothing that a server flags as administration, but for looking at its logs."""
    _, reply = described
    for name, entry in module._entries(reply):
        spec = Catalog.default().specs[name]
        if b"admin" in {flag.lower() for flag in entry[2]} and spec.route in LANE:
            assert name.startswith(LOOKING), name
            assert spec.route is Route.READ


def test_resp3_says_the_same(server_pool: Pool):
    for name in NAMES:
        server = server_pool.get(name)
        with server.client(protocol=3) as client:
            client.response_callbacks.clear()
            assert server_names(client.execute_command("COMMAND")) == server_names(server.call("COMMAND"))


INDEX_RANGE = [
    b"flags",
    [b"RW"],
    b"begin_search",
    [b"type", b"index", b"spec", [b"index", 2]],
    b"find_keys",
    [b"type", b"range", b"spec", [b"lastkey", 0, b"keystep", 1, b"limit", 0]],
]
UNKNOWN_PLACE = [b"flags", [b"RW", b"incomplete"], b"begin_search", [b"type", b"unknown", b"spec", []]]


def entry(name: str, flags: str, span=(0, 0, 0), specs=(), subcommands=()) -> list[Any]:
    return [name.encode(), -2, [flag.encode() for flag in flags.split()], *span, [], [], list(specs), list(subcommands)]


@pytest.mark.parametrize(
    ("said", "writes", "keys"),
    [
        (entry("mod.set", "write", (1, 1, 1)), True, [b"a"]),
        (entry("mod.set", "write", (1, 1, 1))[:7], True, [b"a"]),
        (entry("mod.get", "readonly", (1, -1, 1)), False, [b"a", b"b", b"c"]),
        (entry("mod.odd", "fast"), True, []),
        (entry("mod.spec", "write", (1, 1, 1), [INDEX_RANGE]), True, [b"b"]),
        (entry("mod.part", "write", (1, 1, 1), [INDEX_RANGE, UNKNOWN_PLACE]), True, []),
        (entry("mod.move", "write movablekeys", (1, 1, 1))[:7], True, []),
        (entry("mod.flag", "write", (b"1", None, 1)), True, []),
    ],
)
def test_foreign_command(said, writes, keys):
    catalog = Catalog.from_command_reply([said])
    for name in (said[0], said[0].upper(), said[0].title()):
        spec = catalog.lookup([name, b"a", b"b", b"c"])
        assert (spec.route, spec.known, spec.in_multi, spec.writes) == (Route.PINNED, False, False, writes)
        assert spec.keys([name, b"a", b"b", b"c"]) == keys


def test_foreign_container():
    sub = entry("mod|set", "write", (2, 2, 1))
    catalog = Catalog.from_command_reply([entry("mod", "", subcommands=[sub])])
    assert catalog.server == {b"MOD", b"MOD SET"}
    assert lookup("mod set k", catalog).keys([b"mod", b"set", b"k"]) == [b"k"]
    assert lookup("mod other k", catalog).route is Route.PINNED


def test_new_subcommands_of_our_containers():
    new = [
        entry("client", "", subcommands=[entry("client|new", "")]),
        entry("cluster", "", subcommands=[entry("cluster|new", "")]),
    ]
    catalog = Catalog.from_command_reply(new)
    assert lookup("CLIENT NEW", catalog).route is Route.PINNED
    assert lookup("CLUSTER NEW", catalog).route is Route.REFUSED


@pytest.mark.parametrize("said", [entry("get", "write", (1, 1, 1)), entry("set", "write blocking", (1, 1, 1))])
def test_a_server_that_contradicts_us_is_believed(said):
    catalog = Catalog.from_command_reply([said])
    for name in (said[0], said[0].upper()):
        spec = catalog.lookup([name, b"k"])
        assert (spec.route, spec.writes, spec.known, spec.keys([name, b"k"])) == (Route.PINNED, True, False, [b"k"])


junk = st.recursive(
    st.one_of(
        st.none(), st.integers(), st.binary(max_size=8), st.sampled_from([b"get", b"flags", b"write", b"client|x"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=10), st.dictionaries(st.binary(max_size=3), inner, max_size=3)),
    max_leaves=40,
)


@given(
    st.one_of(
        junk,
        st.lists(
            st.builds(lambda head, rest: [head, *rest], st.binary(max_size=4), st.lists(junk, min_size=5, max_size=9))
        ),
    )
)
def test_any_reply_gives_a_catalog(reply):
    catalog = Catalog.from_command_reply(reply)
    assert len(catalog.specs) >= len(Catalog.default().specs)
    for spec in catalog:
        spec.keys([b"x", b"y", b"z"])
