"""Lists, sets, sorted sets: pops by name, moves, hidden changes."""

from __future__ import annotations

import pytest

from proxy.effects import NOTHING, same_reply
from tests.proxy.effects.transcript import (
    NIL,
    NULL,
    OK,
    ONE,
    ZERO,
    array,
    bulk,
    bulks,
    copied,
    did,
    double,
    number,
    sent,
)

NILS = b"*-1\r\n"
PAIRS = array(array(bulk("a"), double("1")), array(bulk("b"), double("2")))
CHANGED = [
    ("BLPOP k l 0", bulks("l", "e"), "LPOP l"),
    ("BRPOP k 1.5", bulks("k", "e"), "RPOP k"),
    ("BLMOVE k l left RIGHT 0", bulk("e"), "LMOVE k l left RIGHT"),
    ("BRPOPLPUSH k l 0", bulk("e"), "RPOPLPUSH k l"),
    ("LMPOP 2 k l left COUNT 5", array(bulk("l"), bulks("a", "b")), "LPOP l 2"),
    ("BLMPOP 0 1 k RIGHT", array(bulk("k"), bulks("a")), "RPOP k 1"),
    ("LPOP k 5", bulks("a"), "LPOP k 5"),
    ("LPUSHX k v", number(4), "LPUSHX k v"),
    ("LTRIM k 0 1", OK, "LTRIM k 0 1"),
    ("LINSERT k BEFORE p v", number(3), "LINSERT k BEFORE p v"),
    ("SPOP k", bulk("a"), "SREM k a"),
    ("SPOP k 2", bulks("a", "b"), "SREM k a b"),
    ("SPOP k 2", array(bulk("a"), bulk("b"), kind="~"), "SREM k a b"),
    ("SMOVE k l m", ONE, "SMOVE k l m"),
    ("ZPOPMIN k", bulks("a", "1"), "ZREM k a"),
    ("ZPOPMIN k", array(bulk("a"), double("1")), "ZREM k a"),
    ("ZPOPMAX k 2", bulks("a", "1", "b", "2"), "ZREM k a b"),
    ("ZPOPMAX k 2", PAIRS, "ZREM k a b"),
    ("ZMPOP 1 k MIN COUNT 2", array(bulk("k"), array(bulks("a", "1"), bulks("b", "2"))), "ZREM k a b"),
    ("BZMPOP 0 2 k l MAX", array(bulk("l"), PAIRS), "ZREM l a b"),
    ("BZPOPMIN k l 0", bulks("l", "a", "1"), "ZREM l a"),
    ("BZPOPMAX k 0", array(bulk("k"), bulk("a"), double("1")), "ZREM k a"),
    ("ZADD k 1 a", ZERO, "ZADD k 1 a"),  # may have changed a score
    ("ZADD k XX GT CH 1 a", ZERO, "ZADD k XX GT CH 1 a"),
    ("GEOADD k 1 2 a", ZERO, "GEOADD k 1 2 a"),
    ("VADD k VALUES 1 1 e", ZERO, "VADD k VALUES 1 1 e"),  # replaces the vector
    ("VREM k e", b"#t\r\n", "VREM k e"),
]
UNCHANGED = [
    ("BLPOP k 1", NILS),
    ("BLPOP k 1", NULL),
    ("BLMOVE k l LEFT LEFT 1", NIL),
    ("LMPOP 1 k LEFT", NILS),
    ("LPOP k", NIL),
    ("LPOP k 0", array()),
    ("RPOPLPUSH k l", NULL),
    ("LPUSHX k v", ZERO),
    ("LREM k 0 v", ZERO),
    ("LINSERT k BEFORE p v", number(-1)),
    ("SADD k a", ZERO),
    ("SREM k a", ZERO),
    ("SPOP k", NIL),
    ("SPOP k 3", array()),
    ("SPOP k 3", array(kind="~")),
    ("SMOVE k l m", ZERO),
    ("SMOVE k k m", ONE),
    ("ZPOPMIN k", array()),
    ("ZMPOP 1 k MIN", NULL),
    ("BZPOPMIN k 1", NILS),
    ("ZADD k NX INCR 1 a", NIL),
    ("ZADD k NX incr 1 a", NULL),
    ("ZREM k a", ZERO),
    ("ZREMRANGEBYRANK k 0 1", ZERO),
    ("VREM k e", b"#f\r\n"),
    ("GEORADIUSBYMEMBER k store 1 km", array()),
]
COPIED = [
    ("SUNIONSTORE k l m", ZERO, ["k"]),
    ("SINTERSTORE k l", ONE, ["k"]),
    ("ZUNIONSTORE k 2 l m", ZERO, ["k"]),
    ("ZDIFFSTORE k 1 l", ONE, ["k"]),
    ("ZRANGESTORE k l 0 -1", ZERO, ["k"]),
    ("GEOSEARCHSTORE k l FROMMEMBER m BYRADIUS 1 km", ZERO, ["k"]),
    ("GEORADIUS k 1 2 3 km WITHCOORD COUNT 3 STORE l", ZERO, ["l"]),
    ("GEORADIUSBYMEMBER k m 3 km STOREDIST l", ONE, ["l"]),
]


@pytest.mark.parametrize(("command", "reply", "mirrored"), CHANGED)
def test_changed(command: str, reply: bytes, mirrored: str) -> None:
    assert sent(did(command, reply)) == [mirrored]


@pytest.mark.parametrize(("command", "reply"), UNCHANGED)
def test_unchanged(command: str, reply: bytes) -> None:
    assert did(command, reply) is NOTHING


@pytest.mark.parametrize(("command", "reply", "keys"), COPIED)
def test_copied(command: str, reply: bytes, keys: list[str]) -> None:
    assert copied(did(command, reply)) == keys


def test_a_push_that_fills_an_empty_place_proves_that_there_was_no_list() -> None:
    assert did("RPUSH k a b", number(2)).was_absent
    assert not did("RPUSH k a b", number(3)).was_absent
    assert did("LPUSH k a", number(1)).guard == (b"k",)


@pytest.mark.parametrize(
    ("command", "reply"), [("LMOVE k l LEFT LEFT", bulk("e")), ("BRPOPLPUSH k l 0", bulk("e")), ("SMOVE k l m", ONE)]
)
def test_a_move_guards_both_ends(command: str, reply: bytes) -> None:
    effect = did(command, reply)
    assert effect.guard == effect.keys == (b"k", b"l")
    assert effect.expected == (reply,)


def test_a_pop_expects_the_element_it_got() -> None:
    assert did("BLPOP k 0", bulks("k", "e")).expected == (bulk("e"),)
    assert did("LMPOP 1 k LEFT", array(bulk("k"), bulks("a", "b"))).expected == (bulks("a", "b"),)
    assert did("SPOP k 2", bulks("a", "b")).expected == (number(2),)


@pytest.mark.parametrize("command", ["ZINCRBY k 0.1 a", "ZADD k INCR 0.1 a", "ZADD k xx incr 0.1 a"])
@pytest.mark.parametrize("reply", [bulk("0.30000000000000004"), double("0.30000000000000004")])
def test_a_score_is_expected_as_a_number(command: str, reply: bytes) -> None:
    (expected,) = did(command, reply).expected
    assert expected is not None
    assert same_reply(expected, bulk("0.300000000000000044"))
    assert not same_reply(expected, bulk("0.3"))
