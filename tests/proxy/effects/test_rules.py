"""The rules as a whole: none is missing, kinds tell the truth, and what is unknown is a write."""

from __future__ import annotations

import pytest

from proxy.effects import NOTHING, RULES, Context, Effect, Kind, compute
from resp.catalog import Catalog, Route, Spec
from resp.keys import first_key, no_keys
from tests.proxy.effects.transcript import CATALOG, ERROR, NIL, NOW, OK, OLD, ONE, array, bulk, copied, did, sent

CONTEXT = Context(0, 2, NOW)
# Every command that writes, of Redis 6.2, 7.0, 8.2 and Valkey 8.1, 9.1.
WRITES = """
    APPEND BITFIELD BITOP BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLUSTER_FLUSHSLOT COPY DECR
    DECRBY DEL DELIFEQ EXPIRE EXPIREAT FLUSHALL FLUSHDB FUNCTION_DELETE FUNCTION_FLUSH FUNCTION_LOAD FUNCTION_RESTORE
    GEOADD GEORADIUS GEORADIUSBYMEMBER GEOSEARCHSTORE GETDEL GETEX GETSET HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX HINCRBY
    HINCRBYFLOAT HMSET HPERSIST HPEXPIRE HPEXPIREAT HSET HSETEX HSETNX INCR INCRBY INCRBYFLOAT LINSERT LMOVE LMPOP LPOP
    LPUSH LPUSHX LREM LSET LTRIM MIGRATE MOVE MSET MSETEX MSETNX PERSIST PEXPIRE PEXPIREAT PFADD PFDEBUG PFMERGE PSETEX
    RENAME RENAMENX RESTORE RESTORE-ASKING RPOP RPOPLPUSH RPUSH RPUSHX SADD SDIFFSTORE SET SETBIT SETEX SETNX SETRANGE
    SINTERSTORE SMOVE SORT SPOP SREM SUNIONSTORE SWAPDB UNLINK VADD VREM VSETATTR XACK XACKDEL XADD XAUTOCLAIM XCLAIM
    XDEL XDELEX XGROUP XGROUP_CREATE XGROUP_CREATECONSUMER XGROUP_DELCONSUMER XGROUP_DESTROY XGROUP_SETID XREADGROUP
    XSETID XTRIM ZADD ZDIFFSTORE ZINCRBY ZINTERSTORE ZMPOP ZPOPMAX ZPOPMIN ZRANGESTORE ZREM ZREMRANGEBYLEX
    ZREMRANGEBYRANK ZREMRANGEBYSCORE ZUNIONSTORE
    EVAL EVALSHA FCALL SCRIPT_LOAD SCRIPT_FLUSH PUBLISH SPUBLISH PFCOUNT"""


def test_every_write_has_a_rule() -> None:
    missing = [name for name in WRITES.split() if name.replace("_", " ").encode() not in RULES]
    assert not missing


def test_every_rule_is_for_a_command_of_the_catalog() -> None:
    assert not [name for name in RULES if not CATALOG.specs[name].writes]


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.kind is not Kind.COMPUTED])
def test_kinds_tell_what_compute_does(name: bytes) -> None:
    args = [*name.split(), b"k", b"1", b"v"]
    effect = RULES[name].compute(args, OK, CONTEXT)
    guard = (b"k",) if RULES[name].kind in (Kind.AS_SENT_GUARDED, Kind.AS_SENT_PUSHED) else ()
    keys = tuple(CATALOG.lookup(args).keys(args))
    assert effect == Effect((tuple(args),), (OK,), keys, guard)
    if guard:
        assert args[1:2] == [b"k"]  # where a caller that does without `compute` looks for it
    assert RULES[name].compute(args, ERROR, CONTEXT) is NOTHING


def test_a_push_that_makes_a_list() -> None:
    for name in [name for name, rule in RULES.items() if rule.kind is Kind.AS_SENT_PUSHED]:
        args = [name, b"k", b"1", b"v"]
        for reply, absent in [(b":2\r\n", True), (b":3\r\n", False)]:
            effect = RULES[name].compute(args, reply, CONTEXT)
            assert effect == Effect((tuple(args),), (reply,), (b"k",), (b"k",), was_absent=absent)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.plain_argc])
def test_the_plain_form_of_a_computed_rule_is_as_sent(name: bytes) -> None:
    rule = RULES[name]
    args = [name, b"k", b"1", b"v"][: rule.plain_argc]
    guard = (b"k",) if rule.plain_kind is Kind.AS_SENT_GUARDED else ()
    assert len(args) == rule.plain_argc
    assert rule.compute(args, OK, CONTEXT) == Effect((tuple(args),), (OK,), (b"k",), guard)


HALF_WAY = {b"EVAL", b"EVALSHA", b"FCALL", b"MIGRATE"}  # their errors may come after changes


@pytest.mark.parametrize("error", [ERROR, b"!6\r\nERR no\r\n"])
@pytest.mark.parametrize("name", sorted(RULES.keys() - HALF_WAY))
def test_an_error_changed_nothing(name: bytes, error: bytes) -> None:
    assert compute(CATALOG.specs[name], [*name.split(), b"k", b"1", b"k", b"v"], error, CONTEXT) is NOTHING


@pytest.mark.parametrize("reply", [OK, ONE, NIL, array(), bulk("x"), array(bulk("k")), b"%0\r\n"])
@pytest.mark.parametrize("name", sorted(RULES))
def test_nonsense_is_never_an_exception(name: bytes, reply: bytes) -> None:
    for count in range(6):
        args = [*name.split(), *[b"k"] * count]
        assert isinstance(compute(CATALOG.specs[name], args, reply, CONTEXT), Effect)


# -- without a rule --------------------------------------------------------------------------------------------------


def test_an_unknown_command_is_a_write() -> None:
    spec = Spec(b"JSON.SET", Route.PINNED, first_key, writes=True, known=False)
    for reply in (OK, ERROR):  # a module may fail half-way
        assert copied(compute(spec, [b"JSON.SET", b"k"], reply, CONTEXT)) == ["k"]
    assert compute(spec, [b"JSON.SET", b"k"], b"-ERR unknown command 'JSON.SET'\r\n", CONTEXT) is NOTHING


def test_without_keys_it_cannot_be_mirrored() -> None:
    spec = Spec(b"TOPK.WHAT", Route.PINNED, no_keys, writes=True, known=False)
    assert "TOPK.WHAT" in compute(spec, [b"TOPK.WHAT"], OK, CONTEXT).unmirrored


def test_a_read_is_nothing() -> None:
    assert compute(Catalog.default().lookup([b"GET", b"k"]), [b"GET", b"k"], OK, CONTEXT) is NOTHING


def test_a_reply_with_attributes_is_not_looked_into() -> None:
    assert copied(did("SET k v", b"|1\r\n+a\r\n+b\r\n+OK\r\n")) == ["k"]


# -- scripts, and beyond keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [OK, NIL, ERROR])
def test_scripts_are_copied_even_when_they_failed(reply: bytes) -> None:
    assert copied(did("EVAL script 2 k l arg", reply)) == ["k", "l"]
    assert copied(did("EVALSHA sha 1 k", reply)) == ["k"]
    assert copied(did("FCALL f 2 k k", reply)) == ["k"]
    assert did("EVAL script 0 arg", reply) is NOTHING


def test_a_script_that_promises_not_to_write() -> None:
    script = [b"EVAL", b"#!lua flags=no-writes,allow-stale\nreturn 1", b"1", b"k"]
    assert did(script, OK, serving_version=("redis", 7, 0)) is NOTHING
    assert copied(did(script, OK, serving_version=("redis", 6, 2))) == ["k"]
    other = [b"EVAL", b"#!lua flags=allow-oom\nreturn 'no-writes'", b"1", b"k"]
    assert copied(did(other, OK, serving_version=("redis", 7, 0))) == ["k"]


@pytest.mark.parametrize("command", ["FLUSHALL ASYNC", "flushdb", "SWAPDB 0 1"])
def test_barriers(command: str) -> None:
    effect = did(command, OK)
    assert sent(effect) == [command]
    assert effect.barrier is not None
    assert effect.barrier[0] == command.split()[0].upper().encode()
    assert effect.keys == ()


@pytest.mark.parametrize(
    "command", ["PUBLISH c m", "SPUBLISH c m", "SCRIPT LOAD x", "SCRIPT FLUSH", "FUNCTION DELETE l"]
)
def test_no_key_depends_on_the_answer(command: str) -> None:
    effect = did(command, OK)
    assert (sent(effect), effect.expected, effect.keys) == ([command], (None,), ())


def test_functions() -> None:
    assert sent(did("FUNCTION LOAD code", bulk("lib"))) == ["FUNCTION LOAD REPLACE code"]
    assert sent(did("FUNCTION LOAD REPLACE code", bulk("lib"))) == ["FUNCTION LOAD REPLACE code"]
    assert sent(did("FUNCTION RESTORE payload FLUSH", OK)) == ["FUNCTION RESTORE payload FLUSH"]
    assert did("FUNCTION LOAD code", bulk("lib"), mirror=OLD).unmirrored
    assert did("FUNCTION FLUSH", OK, mirror=OLD) is NOTHING
    assert did("SPUBLISH c m", ONE, mirror=OLD) is NOTHING
    assert did("FLUSHDB", OK, mirror=OLD).unmirrored
