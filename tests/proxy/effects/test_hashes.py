"""Hashes: hidden updates, and deadlines of fields."""

from __future__ import annotations

import pytest

from proxy.effects import NOTHING
from tests.proxy.effects.transcript import (
    NIL,
    NOW,
    NULL,
    OK,
    OLD,
    ONE,
    ZERO,
    array,
    bulk,
    bulks,
    copied,
    did,
    number,
    sent,
)

CHANGED = [
    ("HSET k f v", ZERO, ["HSET k f v"]),
    ("HMSET k f v", OK, ["HMSET k f v"]),
    ("HSETNX k f v", ONE, ["HSET k f v"]),
    ("HDEL k f g", ONE, ["HDEL k f g"]),
    ("HINCRBY k f 1", ONE, ["HINCRBY k f 1"]),
    ("HINCRBYFLOAT k f 0.1", bulk("0.1"), ["HINCRBYFLOAT k f 0.1"]),
    ("HEXPIRE k 10 FIELDS 2 f g", array(ONE, number(-2)), [f"HPEXPIREAT k {NOW + 10_000} FIELDS 1 f"]),
    ("HPEXPIRE k 10 GT FIELDS 1 f", array(ONE), [f"HPEXPIREAT k {NOW + 10} FIELDS 1 f"]),
    ("HEXPIREAT k 1800000000 fields 1 FIELDS", array(ONE), ["HPEXPIREAT k 1800000000007 FIELDS 1 FIELDS"]),
    (
        "HPEXPIREAT k 5 FIELDS 3 f g h",
        array(number(2), ONE, ZERO),
        ["HPEXPIREAT k 12 FIELDS 1 g", "HDEL k f"],
    ),
    ("HPERSIST k FIELDS 2 f g", array(ONE, number(-1)), ["HPERSIST k FIELDS 2 f g"]),
    ("HGETEX k EX 10 FIELDS 2 f g", array(NIL, bulk("v")), [f"HGETEX k PXAT {NOW + 10_000} FIELDS 1 g"]),
    ("HGETEX k PERSIST FIELDS 2 f g", array(bulk("w"), bulk("v")), ["HGETEX k PERSIST FIELDS 2 f g"]),
    ("HGETEX k FIELDS 1 f PX 10", array(bulk("v")), [f"HGETEX k PXAT {NOW + 10} FIELDS 1 f"]),
    ("HGETDEL k FIELDS 2 f g", array(NIL, bulk("v")), ["HDEL k g"]),
    ("HSETEX k FIELDS 2 f v g w", ONE, ["HSET k f v g w"]),
    ("HSETEX k FNX EX 10 FIELDS 1 f v", ONE, [f"HSETEX k PXAT {NOW + 10_000} FIELDS 1 f v"]),
    ("HSETEX k PXAT 5 FIELDS 2 f v g w", ONE, ["HDEL k f g"]),
]
UNCHANGED = [
    ("HSETNX k f v", ZERO),
    ("HDEL k f", ZERO),
    ("HEXPIRE k 10 FIELDS 2 f g", array(number(-2), ZERO)),
    ("HEXPIRE k 10 FIELDS 1 f", NIL),
    ("HPERSIST k FIELDS 1 f", array(number(-1))),
    ("HGETEX k FIELDS 1 f", array(bulk("v"))),
    ("HGETEX k EX 10 FIELDS 1 f", array(NULL)),
    ("HGETDEL k FIELDS 1 f", array(NIL)),
    ("HSETEX k FNX FIELDS 1 f v", ZERO),
]


@pytest.mark.parametrize(("command", "reply", "mirrored"), CHANGED)
def test_changed(command: str, reply: bytes, mirrored: list[str]) -> None:
    assert sent(did(command, reply, clock_shift_ms=7)) == mirrored


@pytest.mark.parametrize(("command", "reply"), UNCHANGED)
def test_unchanged(command: str, reply: bytes) -> None:
    assert did(command, reply) is NOTHING


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("HEXPIRE k 10 FIELDS 1 f", array(ONE)),
        ("HGETEX k PERSIST FIELDS 1 f", array(bulk("v"))),
        ("HSETEX k EX 10 FIELDS 1 f v", ONE),
        ("HPERSIST k FIELDS 1 f", array(ONE)),
    ],
)
def test_a_mirror_without_field_deadlines_gets_the_state(command: str, reply: bytes) -> None:
    assert copied(did(command, reply, mirror=OLD)) == ["k"]


def test_a_kept_field_deadline_shows_in_no_reply_so_the_state_is_copied() -> None:
    assert copied(did("HSETEX k KEEPTTL FIELDS 1 f v", ONE)) == ["k"]


def test_a_float_is_stored_where_that_cannot_clear_a_field_s_deadline() -> None:
    assert sent(did("HINCRBYFLOAT k f 0.1", bulk("0.3"), mirror=OLD)) == ["HSET k f 0.3"]
    assert did("HINCRBYFLOAT k f 0.1", bulk("0.3")).expected == (bulk("0.3"),)


def test_fields_that_were_read_are_expected_there_too() -> None:
    effect = did("HGETEX k PERSIST FIELDS 3 f g h", array(bulk("1"), NIL, bulk("3")))
    assert effect.expected == (bulks("1", "3"),)


def test_the_guard_is_on_what_creates_the_hash() -> None:
    assert did("HSETEX k EX 9 FIELDS 1 f v", ONE).guard == (b"k",)
    assert did("HSET k f v", ZERO).guard == (b"k",)
    assert did("HDEL k f", ONE).guard == ()
