"""SET in all its forms, and its relatives."""

from __future__ import annotations

import pytest

from proxy.effects import NOTHING
from tests.proxy.effects.transcript import (
    ERROR,
    NIL,
    NOW,
    NULL,
    OK,
    OLD,
    ONE,
    ZERO,
    array,
    bulk,
    copied,
    did,
    number,
    sent,
)

CHANGED = [
    ("SET k v", OK, "SET k v"),
    ("set k ex", OK, "set k ex"),
    ("SET k v NX", OK, "SET k v"),
    ("SET k v XX keepttl", OK, "SET k v KEEPTTL"),
    ("SET k v GET", NIL, "SET k v"),
    ("SET k v GET", bulk("old"), "SET k v"),
    ("SET k v nx get", NIL, "SET k v"),
    ("SET k v NX GET", NULL, "SET k v"),
    ("SET k v XX GET", bulk("old"), "SET k v"),
    ("SET k v IFEQ old", OK, "SET k v"),
    ("SET k v IFEQ old GET", bulk("old"), "SET k v"),
    ("SET k v IFNE old GET", NIL, "SET k v"),
    ("SET k v EX 10", OK, f"SET k v PXAT {NOW + 10_000}"),
    ("SET k ex px 10 xx", OK, f"SET k ex PXAT {NOW + 10}"),
    ("SET k v EXAT 1800000000", OK, "SET k v PXAT 1800000000007"),
    ("SET k v PXAT 1800000000000 GET", NIL, "SET k v PXAT 1800000000007"),
    ("SETEX k 10 v", OK, f"SET k v PXAT {NOW + 10_000}"),
    ("PSETEX k 10 v", OK, f"SET k v PXAT {NOW + 10}"),
    ("GETSET k v", NIL, "SET k v"),
    ("GETSET k v", bulk("old"), "SET k v"),
    ("SETNX k v", ONE, "SET k v"),
    ("MSETNX k v l w", ONE, "MSET k v l w"),
    ("GETDEL k", bulk("v"), "DEL k"),
    ("DELIFEQ k v", ONE, "DEL k"),
    ("DELEX k IFEQ v", ONE, "DEL k"),
    ("GETEX k EX 10", bulk("v"), f"PEXPIREAT k {NOW + 10_000}"),
    ("GETEX k PXAT 1800000000000", bulk("v"), "PEXPIREAT k 1800000000007"),
    ("GETEX k PERSIST", bulk("v"), "PERSIST k"),
    ("INCRBYFLOAT k 0.1", bulk("0.3"), "SET k 0.3 KEEPTTL"),
    ("BITFIELD k GET u8 0 SET u8 0 1", array(ZERO, ZERO), "BITFIELD k GET u8 0 SET u8 0 1"),
    ("BITFIELD k OVERFLOW FAIL INCRBY u8 0 1", array(NIL), "BITFIELD k OVERFLOW FAIL INCRBY u8 0 1"),
    ("PFADD k a", ONE, "PFADD k a"),
    ("PFCOUNT k", ONE, "PFCOUNT k"),
]
UNCHANGED = [
    ("SET k v NX", NIL),
    ("SET k v XX", NULL),
    ("SET k v NX GET", bulk("old")),
    ("SET k v XX GET", NIL),
    ("SET k v IFEQ old", NIL),
    ("SET k v IFEQ old GET", bulk("other")),
    ("SET k v IFEQ old GET", NIL),
    ("SET k v IFNE old GET", bulk("old")),
    ("SET k v", ERROR),
    ("SETNX k v", ZERO),
    ("MSETNX k v", ZERO),
    ("MSETEX 1 k v NX", ZERO),
    ("GETDEL k", NIL),
    ("DELIFEQ k v", ZERO),
    ("GETEX k EX 10", NIL),
    ("GETEX k", bulk("v")),
    ("BITFIELD k GET u8 0 GET u8 8", array(ZERO, ZERO)),
    ("PFADD k a", ZERO),
    ("PFCOUNT k l", ONE),
    ("PFDEBUG ENCODING k", b"+sparse\r\n"),
    ("INCR k", ERROR),
    ("BITOP AND k l", ERROR),
]


@pytest.mark.parametrize(("command", "reply", "mirrored"), CHANGED)
def test_changed(command: str, reply: bytes, mirrored: str) -> None:
    assert sent(did(command, reply, clock_shift_ms=7)) == [mirrored]


@pytest.mark.parametrize(("command", "reply"), UNCHANGED)
def test_unchanged(command: str, reply: bytes) -> None:
    assert did(command, reply) is NOTHING


def test_a_set_does_not_care_what_was_there_before() -> None:
    effect = did("SET k v NX EX 10", OK)
    assert (effect.guard, effect.keys, effect.expected) == ((), (b"k",), (OK,))


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("SET k v KEEPTTL", OK),
        ("MSETEX 1 k v KEEPTTL", ONE),
        ("GETEX k PERSIST", bulk("v")),
        ("INCRBYFLOAT k 1", bulk("1")),
        ("INCR k", ONE),
        ("DECRBY k 2", number(-2)),
        ("APPEND k x", ONE),
        ("SETRANGE k 1 x", number(2)),
        ("SETBIT k 1 0", ZERO),
        ("BITFIELD k SET u8 0 0", array(ZERO)),
        ("PFADD k a", ONE),
    ],
)
def test_what_builds_on_the_key_is_guarded(command: str, reply: bytes) -> None:
    assert did(command, reply).guard == (b"k",)


def test_append_of_nothing_creates_the_key_and_is_mirrored() -> None:
    assert did([b"APPEND", b"k", b""], ZERO).commands == ((b"APPEND", b"k", b""),)


@pytest.mark.parametrize(
    ("command", "relative"),
    [
        ("SET k v EX 9", True),
        ("SET k v PXAT 9", False),
        ("SET k v", False),
        ("SETEX k 9 v", True),
        ("SET k v KEEPTTL", False),
    ],
)
def test_a_deadline_counted_from_now_is_marked(command: str, relative: bool) -> None:
    assert did(command, OK).relative is relative


def test_msetex_becomes_one_set_per_key() -> None:
    assert sent(did("MSETEX 2 k v l w XX PX 5", ONE)) == [f"SET k v PXAT {NOW + 5}", f"SET l w PXAT {NOW + 5}"]
    effect = did("MSETEX 2 k v l w KEEPTTL", ONE, mirror=OLD)
    assert sent(effect) == ["SET k v KEEPTTL", "SET l w KEEPTTL"]
    assert effect.keys == effect.guard == (b"k", b"l")


def test_mset_names_all_keys() -> None:
    assert did("MSET k v l w", OK).keys == (b"k", b"l")


@pytest.mark.parametrize(
    ("command", "reply", "keys"),
    [
        ("SET k v IFDEQ 0123 GET", bulk("old"), ["k"]),  # a digest: the reply cannot tell
        ("SET k v SOMETHING", OK, ["k"]),
        ("BITOP NOT k l", ZERO, ["k"]),
        ("PFMERGE k l m", OK, ["k"]),
        ("PFDEBUG GETREG k", array(), ["k"]),
    ],
)
def test_copied(command: str, reply: bytes, keys: list[str]) -> None:
    assert copied(did(command, reply)) == keys
