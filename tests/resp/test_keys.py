"""Key extraction: every way Redis places keys, compared with COMMAND GETKEYS of real servers."""

from __future__ import annotations

import random
import socket
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp import keys as k
from resp.catalog import Catalog, Route
from tests.servers import NAMES, Pool, Server


class Connection:
    """A plain RESP2 connection: replies as hiredis decodes them, errors as values, nothing interpreted."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self._reader = hiredis.Reader()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def call(self, *args: bytes) -> Any:
        return self.pipeline([list(args)])[0]

    def pipeline(self, commands: list[list[bytes]]) -> list[Any]:
        packed = (hiredis.pack_command(tuple(command)) for command in commands)  # type: ignore[arg-type]
        self._socket.sendall(b"".join(packed))
        replies: list[Any] = []
        while len(replies) < len(commands):
            while (reply := self._reader.gets()) is False:
                self._reader.feed(self._socket.recv(1 << 20))
            replies.append(reply)
        return replies


# (call, its keys, the names it is made with). Words are separated by blanks, "" is an empty argument.
SHAPES: tuple[tuple[str, str, str], ...] = (
    (
        "{} k",
        "k",
        """DECR DUMP EXPIRETIME GET GETDEL GETEX INCR PERSIST PEXPIRETIME PTTL STRLEN TTL TYPE
        BITCOUNT HGETALL HKEYS HLEN HRANDFIELD HVALS LLEN LPOP RPOP SCARD SMEMBERS SPOP SRANDMEMBER SORT SORT_RO
        DELEX DIGEST PFADD XLEN ZCARD ZPOPMAX ZPOPMIN ZRANDMEMBER VCARD VDIM VINFO VRANDMEMBER""",
    ),
    (
        "{} k x",
        "k",
        """APPEND DECRBY GETBIT GETSET INCRBY INCRBYFLOAT MOVE SETNX BITPOS DELIFEQ EXPIRE EXPIREAT PEXPIRE
        PEXPIREAT SET HDEL HEXISTS HGET HMGET HSCAN HSTRLEN LINDEX LPOS LPUSH LPUSHX RPUSH RPUSHX SADD SISMEMBER
        SMISMEMBER SREM SSCAN GEOHASH GEOPOS XDEL XPENDING XSETID ZMSCORE ZRANK ZREM ZREVRANK ZSCAN ZSCORE
        VEMB VGETATTR VISMEMBER VLINKS VREM VSIM PFADD XCFGSET""",
    ),
    (
        "{} k x y",
        "k",
        """GETRANGE PSETEX SETBIT SETEX SETRANGE SUBSTR RESTORE RESTORE-ASKING BITFIELD BITFIELD_RO GEODIST
        HINCRBY HINCRBYFLOAT HSET HSETNX HMSET LRANGE LREM LSET LTRIM XACK XRANGE XREVRANGE XTRIM ZADD ZCOUNT ZINCRBY
        ZLEXCOUNT ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE
        ZREVRANGEBYLEX ZREVRANGEBYSCORE VSETATTR VRANGE""",
    ),
    ("{} k FIELDS 1 a", "k", "HEXPIRETIME HPEXPIRETIME HPTTL HTTL HPERSIST HGETDEL HGETEX"),
    ("{} k 10 FIELDS 1 a", "k", "HEXPIRE HEXPIREAT HPEXPIRE HPEXPIREAT"),
    ("{} a b", "a b", "LCS RENAME RENAMENX RPOPLPUSH COPY"),
    ("{} a", "a", "DEL EXISTS MGET SDIFF SINTER SUNION TOUCH UNLINK WATCH PFCOUNT PFMERGE"),
    ("{} a b c", "a b c", "DEL EXISTS MGET SDIFF SINTER SUNION TOUCH UNLINK WATCH PFCOUNT"),
    ("{} d a b", "d a b", "PFMERGE SDIFFSTORE SINTERSTORE SUNIONSTORE"),
)

# Call -> its keys, in any order.
CALLS: dict[str, str] = {
    **{shape.format(name): keys for shape, keys, names in SHAPES for name in names.split()},
    # -- strings and keys
    "SET k k2 EX 10 NX GET": "k",
    "GETEX k PX 100": "k",
    "MSET a 1": "a",
    "MSET a 1 b 2 c 3": "a b c",
    "MSETNX a 1 b 2": "a b",
    "MSETEX 2 a 1 b 2 NX EX 10": "a b",
    "MSETEX 1 a 1": "a",
    "MSETEX 3 a 1 b 2": "",
    "MSETEX 0 a 1": "",
    "MSETEX x a 1": "",
    "BITOP AND d a b": "d a b",
    "BITOP NOT d a": "d a",
    "COPY a b DB 3 REPLACE": "a b",
    "LCS a b IDX MINMATCHLEN 4": "a b",
    "STRALGO LCS KEYS a b": "a b",
    "STRALGO LCS IDX MINMATCHLEN 4 KEYS a b WITHMATCHLEN": "a b",
    "STRALGO LCS STRINGS KEYS b": "",
    "STRALGO LCS STRINGS a b IDX": "",
    # -- SORT: the last STORE wins
    "SORT k BY w_* LIMIT 0 10 GET o_* GET # DESC ALPHA STORE d": "k d",
    "SORT k STORE d BY w_*": "k d",
    "SORT k store d STORE e": "k e",
    "SORT k BY store GET STORE": "k",
    "SORT k GET STORE STORE d": "k d",
    "SORT k LIMIT store 1 STORE d": "k d",
    "SORT k STORE": "k",
    "SORT_RO k BY w_* GET o_*": "k",
    # -- lists, sets
    "LMOVE a b LEFT RIGHT": "a b",
    "SMOVE a b m": "a b",
    "LINSERT k BEFORE x y": "k",
    "SINTERCARD 2 a b": "a b",
    "SINTERCARD 2 a b LIMIT 3": "a b",
    "SINTERCARD 3 a b": "",
    "SINTERCARD 0 a b": "",
    "SINTERCARD -1 a b": "",
    "SINTERCARD x a b": "",
    "SINTERCARD 01 a b": "",
    "SINTERCARD 9999999999999999999999 a b": "",
    "LMPOP 2 a b LEFT COUNT 10": "a b",
    "LMPOP 1 a RIGHT": "a",
    # -- blocking
    "BLPOP a 0": "a",
    "BLPOP a b c 0.5": "a b c",
    "BRPOP a b 1": "a b",
    "BZPOPMAX a b 1": "a b",
    "BZPOPMIN a 1": "a",
    "BRPOPLPUSH a b 0": "a b",
    "BLMOVE a b LEFT RIGHT 0": "a b",
    "BLMPOP 0 2 a b LEFT COUNT 3": "a b",
    "BLMPOP 0 3 a b LEFT": "a b LEFT",
    "BZMPOP 0.1 1 a MIN": "a",
    # -- sorted sets
    "ZADD k NX CH 1 a 2 b": "k",
    "ZDIFF 2 a b WITHSCORES": "a b",
    "ZINTER 2 a b WEIGHTS 1 2 AGGREGATE MAX": "a b",
    "ZUNION 1 a": "a",
    "ZUNION 3 a b": "",
    "ZINTERCARD 2 a b LIMIT 1": "a b",
    "ZDIFFSTORE d 2 a b": "d a b",
    "ZINTERSTORE d 2 a b WEIGHTS 1 2": "d a b",
    "ZUNIONSTORE d 1 a AGGREGATE SUM": "d a",
    "ZUNIONSTORE d 2 d a": "d d a",
    "ZRANGESTORE d s 0 -1 BYSCORE": "d s",
    "ZMPOP 2 a b MIN COUNT 2": "a b",
    # -- geo
    "GEOADD k 1 2 m": "k",
    "GEOSEARCH k FROMMEMBER m BYRADIUS 1 m": "k",
    "GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 m STOREDIST": "d s",
    "GEORADIUS k 1 2 3 m": "k",
    "GEORADIUS k 1 2 3 m WITHDIST COUNT 5 ANY ASC": "k",
    "GEORADIUS k 1 2 3 m COUNT 5 STORE d": "k d",
    "GEORADIUS k 1 2 3 m storedist d": "k d",
    "GEORADIUS k 1 2 3 m STORE d STOREDIST e": "k e",
    "GEORADIUS k 1 2 3 m STORE d STORE e": "k e",
    "GEORADIUS k 1 2 3 m STORE STORE": "k STORE",
    "GEORADIUS k 1 2 3 m STORE": "k",
    "GEORADIUSBYMEMBER k STORE 3 m STORE d": "k d",
    "GEORADIUSBYMEMBER k m 3 m ASC": "k",
    "GEORADIUS_RO k 1 2 3 m": "k",
    "GEORADIUSBYMEMBER_RO k m 3 m": "k",
    # -- hash fields
    "HEXPIRE k 10 NX FIELDS 2 a b": "k",
    "HSETEX k EX 10 FIELDS 1 a x": "k",
    # -- streams
    "XADD k NOMKSTREAM MAXLEN ~ 100 * f v": "k",
    "XREAD STREAMS a 0": "a",
    "XREAD COUNT 2 BLOCK 0 STREAMS a b 0 $": "a b",
    "XREAD STREAMS a b 0": "",
    "XREAD STREAMS a": "",
    "XREAD COUNT 2 BLOCK 0": "",
    "xread streams streams STREAMS 0 0": "streams STREAMS",
    "XREADGROUP GROUP g c STREAMS a >": "a",
    "XREADGROUP GROUP g c COUNT 1 BLOCK 5 NOACK STREAMS a b > 0": "a b",
    "XREADGROUP GROUP STREAMS BLOCK STREAMS a >": "a",
    "XREADGROUP COUNT 1 GROUP g c STREAMS a b > >": "a b",
    "XREADGROUP GROUP g c CLAIM 5 STREAMS a >": "a",
    "XGROUP CREATE k g $ MKSTREAM": "k",
    "XGROUP CREATECONSUMER k g c": "k",
    "XGROUP DELCONSUMER k g c": "k",
    "XGROUP DESTROY k g": "k",
    "XGROUP SETID k g 0": "k",
    "XGROUP HELP": "",
    "XINFO STREAM k FULL COUNT 3": "k",
    "XINFO GROUPS k": "k",
    "XINFO CONSUMERS k g": "k",
    "XINFO HELP": "",
    "XCLAIM k g c 0 1-1": "k",
    "XAUTOCLAIM k g c 0 0": "k",
    "XACKDEL k g KEEPREF IDS 1 1-1": "k",
    "XDELEX k ACKED IDS 1 1-1": "k",
    # -- scripts
    "EVAL script 2 a b x y": "a b",
    "EVAL script 0 x": "",
    "EVAL script 3 a b": "",
    "EVAL script -1 a": "",
    "EVALSHA sha 1 a": "a",
    "EVAL_RO script 1 a x": "a",
    "EVALSHA_RO sha 2 a b": "a b",
    "FCALL f 1 a x": "a",
    "FCALL_RO f 2 a b": "a b",
    # -- others
    "MIGRATE host 6379 k 0 100": "k",
    "MIGRATE host 6379 k 0 100 COPY REPLACE AUTH KEYS": "k",
    'MIGRATE host 6379 "" 0 100 KEYS a b c': "a b c",
    'MIGRATE host 6379 "" 0 100 REPLACE AUTH KEYS KEYS a b': "a b",
    'MIGRATE host 6379 "" 0 100 AUTH2 KEYS KEYS KEYS a': "a",
    "OBJECT ENCODING k": "k",
    "OBJECT FREQ k": "k",
    "OBJECT IDLETIME k": "k",
    "OBJECT REFCOUNT k": "k",
    "OBJECT HELP": "",
    "MEMORY USAGE k": "k",
    "MEMORY USAGE k SAMPLES 5": "k",
    "MEMORY DOCTOR": "",
    "MEMORY STATS": "",
    "PFDEBUG GETREG k": "k",
    "VADD k VALUES 1 1.0 e": "k",
    "XIDMPRECORD k p i 1-1": "k",
    "PUBLISH channel m": "",
    "SPUBLISH channel m": "",
    "SSUBSCRIBE channel": "",
    "SUNSUBSCRIBE channel": "",
    "CLUSTERSCAN 0": "",
    "SCAN 0": "",
    "KEYS *": "",
    "PING": "",
    "FLUSHALL": "",
    "SWAPDB 0 1": "",
    "SCRIPT LOAD x": "",
    "FUNCTION LOAD x": "",
    "CONFIG GET x": "",
    "OBJECT UNHEARD k": "k",
}

# Where COMMAND GETKEYS says something else: its answer, and why we do not follow it.
SINCE_70 = {name for name in NAMES if name != "redis-6.2"}
EXCEPTIONS: dict[str, tuple[set[str], str, str]] = {
    "GEORADIUS k 1 2 3 m STORE d STOREDIST e": (
        SINCE_70 - {"valkey-9.1"},
        "k d e",
        "only the last destination is written",
    ),
    "GEORADIUS k 1 2 3 m STORE d STORE e": (
        SINCE_70 - {"valkey-9.1"},
        "k d",
        "the key specification finds the first, the server writes the last",
    ),
    'MIGRATE host 6379 "" 0 100 REPLACE AUTH KEYS KEYS a b': (
        {"redis-6.2"},
        "KEYS a b",
        "takes the password for the keyword",
    ),
    'MIGRATE host 6379 "" 0 100 AUTH2 KEYS KEYS KEYS a': (
        {"redis-6.2"},
        "KEYS KEYS a",
        "takes the user for the keyword",
    ),
    "PFMERGE a": (SINCE_70, "", "the key specification wants a source; the server runs it without"),
    "SINTERCARD 01 a b": (SINCE_70, "a", "atoi in GETKEYS; the command refuses the number"),
    "XREAD STREAMS a b 0": (SINCE_70, "a", "the key specification divides by two; the command refuses the call"),
    "XREADGROUP GROUP g c CLAIM 5 STREAMS a >": ({"redis-6.2"}, "", "an option of Redis 8.4"),
    "OBJECT UNHEARD k": (
        SINCE_70,
        "",
        "no such subcommand; the key is a guess that dirties too much rather than too little",
    ),
}


def words(call: str) -> list[bytes]:
    return [b"" if word == '""' else word.encode() for word in call.split()]


def ours(call: str) -> list[bytes]:
    args = words(call)
    return sorted(Catalog.default().lookup(args).keys(args))


@pytest.mark.parametrize("call", CALLS)
def test_keys_of(call):
    assert ours(call) == sorted(words(CALLS[call]))


def test_every_command_with_keys_is_called():
    catalog = Catalog.default()
    called = {catalog.lookup(words(call)).name for call, keys in CALLS.items() if keys}
    containers = {spec.name.partition(b" ")[0] for spec in catalog if b" " in spec.name}
    silent = {spec.name for spec in catalog if spec.keys is not k.no_keys} - called - containers
    assert not silent


@pytest.mark.parametrize("name", NAMES)
def test_servers_agree(server_pool: Pool, name):
    """COMMAND GETKEYS of every call the server knows; an error of it means no keys."""
    with Connection(server_pool.get(name)) as server:
        known = {entry[0].upper() for entry in server.call(b"COMMAND")}
        answers = {call: keys_of_server(server, call) for call in CALLS if words(call)[0].upper() in known}
    differing = {call: theirs for call, theirs in answers.items() if theirs != ours(call)}
    explained = {call: sorted(words(theirs)) for call, (names, theirs, _) in EXCEPTIONS.items() if name in names}
    assert differing == {call: theirs for call, theirs in explained.items() if call in answers}
    assert len(answers) > 200


def keys_of_server(server: Connection, call: str) -> list[bytes]:
    answer = server.call(b"COMMAND", b"GETKEYS", *words(call))
    return [] if isinstance(answer, hiredis.ReplyError) else sorted(answer)


# -- against what servers really do ---------------------------------------------------------------------------------

ODD_COUNTS = (b"01", b"+1", b" 1", b"1 ", b"1.0", b"0x1", b"1\x00", b"\xd9\xa1", b"-0", b"", b"18446744073709551617")


@pytest.mark.parametrize("name", NAMES)
def test_servers_refuse_every_count_that_we_refuse(server_pool: Pool, name):
    """Redis' strict numbers: what we do not read as a count is an error there, so that no key goes unseen."""
    with Connection(server_pool.get(name)) as server:
        for count in ODD_COUNTS:
            for args in (
                [b"EVAL", b"return redis.call('SET', KEYS[1], 1)", count, b"a"],
                [b"ZUNIONSTORE", b"d", count, b"a"],
                [b"LMPOP", count, b"a", b"LEFT"],
                [b"BLMPOP", b"0.01", count, b"a", b"LEFT"],
                [b"SINTERCARD", count, b"a"],
            ):
                assert isinstance(server.call(*args), hiredis.ReplyError), args
                assert Catalog.default().lookup(args).keys(args) == [], args


WILD = (
    "a b c d e k s 0 1 2 3 -1 STORE STOREDIST KEYS STREAMS BLOCK COUNT LIMIT GROUP BY GET DB REPLACE LEFT MIN > $ * g"
)
POOL = words(WILD)
UNIVERSE = [b"a", b"b", b"c", b"d", b"e", b"k", b"s", b"1", b"2", b"STORE", b"KEYS", b"STREAMS", b"COUNT"]
MAKERS: list[list[list[bytes]]] = [
    [[b"SET", b"%k", b"12"]],
    [[b"RPUSH", b"%k", b"3", b"1", b"2"]],
    [[b"SADD", b"%k", b"a", b"m", b"2"]],
    [[b"GEOADD", b"%k", b"1", b"2", b"m", b"1", b"2.1", b"a"]],
    [[b"HSET", b"%k", b"a", b"1", b"x", b"2"]],
    [[b"XADD", b"%k", b"1-1", b"f", b"v"], [b"XGROUP", b"CREATE", b"%k", b"g", b"0"]],
    [[b"PFADD", b"%k", b"x"]],
    [],
]
ROUNDS = 3000


@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_written_that_we_do_not_name(server_pool: Pool, name):
    """Calls with random words in random places run for real; each key that changed must be among ours."""
    catalog, dice, changes = Catalog.default(), random.Random(name), 0
    with Connection(server_pool.get(name)) as server:
        templates = [args for args in map(words, CALLS) if runs_there(server, catalog, args)]
        for _ in range(ROUNDS):
            args = mutated(dice, dice.choice(templates))
            server.pipeline([[b"FLUSHALL"], *populate(dice)])
            before = snapshot(server)
            server.pipeline([[b"MULTI"], args, [b"EXEC"]])  # nothing blocks in a transaction
            after = snapshot(server)
            changed = {key for key in before | after if before.get(key) != after.get(key)}
            assert changed <= set(catalog.lookup(args).keys(args)), args
            changes += bool(changed)
    assert changes > ROUNDS / 20  # the words are not so wild that nothing happens


def runs_there(server: Connection, catalog: Catalog, args: list[bytes]) -> bool:
    spec = catalog.lookup(args)
    if spec.route not in (Route.WRITE, Route.BLOCKING) or spec.keys is k.no_keys:
        return False
    return server.call(b"COMMAND", b"INFO", args[0]) != [None]


def mutated(dice: random.Random, template: list[bytes]) -> list[bytes]:
    args = list(template)
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        at = dice.randint(1, len(args))
        match dice.randrange(3):
            case 0:
                args.insert(at, dice.choice(POOL))
            case 1:
                args[at : at + 1] = [dice.choice(POOL)]
            case _:
                del args[at : at + 1]
    return args


def populate(dice: random.Random) -> list[list[bytes]]:
    """Most keys of one type, so that commands on several of them can succeed."""
    common = dice.choice(MAKERS)
    makers = [(key, dice.choice([common, common, common, *MAKERS[-1:], dice.choice(MAKERS)])) for key in UNIVERSE]
    return [[key if word == b"%k" else word for word in command] for key, maker in makers for command in maker]


def snapshot(server: Connection) -> dict[bytes, Any]:
    keys = server.call(b"KEYS", b"*")
    replies = server.pipeline([command for key in keys for command in ([b"DUMP", key], [b"PTTL", key])])
    return {key: (replies[2 * at], replies[2 * at + 1] > 0) for at, key in enumerate(keys)}


# -- XREAD and XREADGROUP block only with BLOCK ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("BLPOP a 0", True),
        ("XREAD STREAMS a 0", False),
        ("XREAD BLOCK 0 STREAMS a $", True),
        ("xread count 1 block 0 streams a $", True),
        ("XREAD COUNT BLOCK STREAMS a 0", False),
        ("XREAD STREAMS BLOCK 0", False),
        ("XREADGROUP GROUP BLOCK BLOCK STREAMS a >", False),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS a >", True),
        ("XREADGROUP BLOCK 0 GROUP g c STREAMS a >", True),
        ("XREAD BLOCK 0", True),
        ("XREAD STREAMS a", False),
        ("XREAD", False),
    ],
)
def test_blocks(call, expected):
    assert k.blocks(words(call)) is expected


# -- descriptions of servers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SINCE_70))
def test_key_specifications_give_the_same_keys(server_pool: Pool, name):
    """What we would do for an unknown command, tried on those that we know."""
    with Connection(server_pool.get(name)) as server:
        entries = {entry[0].upper(): entry for entry in server.call(b"COMMAND")}
    compared = 0
    for call in CALLS:
        args = words(call)
        entry = entries.get(args[0].upper())
        if entry is None or not entry[8] or call in EXCEPTIONS:
            continue
        described = k.described(entry[8])
        if described is None:
            assert args[0] in (b"SORT", b"SORT_RO", b"MIGRATE"), call
            continue
        assert sorted(described(args)) == ours(call), call
        compared += 1
    assert compared > 150


@pytest.mark.parametrize(
    ("triple", "call", "expected"),
    [
        ((1, 1, 1), "X a b", "a"),
        ((1, -1, 1), "X a b c", "a b c"),
        ((1, -2, 1), "X a b c", "a b"),
        ((1, -1, 2), "X a 1 b 2", "a b"),
        ((2, 2, 1), "X sub", ""),
        ((2, -2, 1), "X", ""),
        ((0, 0, 0), "X a", ""),
        ((1, -1, 0), "X a", ""),
        ((-1, -1, 1), "X a", ""),
    ],
)
def test_span(triple, call, expected):
    assert k.span(*triple)(words(call)) == words(expected)


SPEC = {b"begin_search": {b"type": b"index", b"spec": {b"index": 1}}}
RANGE = {b"type": b"range", b"spec": {b"lastkey": 0, b"keystep": 1, b"limit": 0}}


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([{**SPEC, b"find_keys": RANGE}], "a"),
        ([{**SPEC, b"find_keys": RANGE, b"flags": [b"not_key"]}], ""),
        ([{**SPEC, b"find_keys": RANGE, b"flags": {b"RO", b"incomplete"}}], None),
        ([{**SPEC, b"find_keys": RANGE}, {**SPEC, b"find_keys": {b"type": b"unknown", b"spec": {}}}], None),
        ([{b"begin_search": {b"type": b"unknown", b"spec": {}}, b"find_keys": RANGE}], None),
        ([b"nonsense"], None),
        ([], ""),
    ],
)
def test_described(specs, expected):
    described = k.described(specs)
    assert (described and described(words("X a b"))) == (None if expected is None else words(expected))


# -- anything goes --------------------------------------------------------------------------------------------------

any_words = st.lists(st.one_of(st.sampled_from(POOL), st.binary(max_size=6), st.sampled_from(ODD_COUNTS)), max_size=12)


@given(any_words)
def test_no_extractor_raises(args):
    catalog = Catalog.default()
    for extractor in {spec.keys for spec in catalog}:
        for named in (args, [b"X", *args]):
            keys = extractor(named)
            assert all(key in named for key in keys)
        assert k.blocks(args) in (True, False)


plain = st.one_of(
    st.none(), st.integers(-3, 5), st.binary(max_size=4), st.sampled_from([b"index", b"keyword", b"range", b"keynum"])
)
KEYWORDS = (b"index", b"keyword", b"startfrom", b"lastkey", b"keystep", b"limit", b"keynumidx", b"firstkey")
part = st.fixed_dictionaries({b"type": plain, b"spec": st.dictionaries(st.sampled_from(KEYWORDS), plain)})
descriptions = st.lists(
    st.one_of(
        plain,
        st.fixed_dictionaries({b"flags": st.one_of(plain, st.lists(plain)), b"begin_search": part, b"find_keys": part}),
    )
)


@given(descriptions, any_words)
def test_no_description_raises(specs, args):
    described = k.described(specs)
    if described is not None:
        assert all(key in args for key in described(args))


@given(st.integers(-3, 5), st.integers(-5, 5), st.integers(-2, 3), any_words)
def test_no_span_raises(first, last, step, args):
    assert all(key in args for key in k.span(first, last, step)(args))
