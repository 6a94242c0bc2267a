"""Streams: ids from replies, exact trimming, and what empty replies of group commands hide."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.effects import NOTHING, RULES, same_reply
from tests.proxy.effects.transcript import (
    NIL,
    NOW,
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
    words,
)

V62, V70, V82, V91 = ("redis", 6, 2), ("redis", 7, 0), ("redis", 8, 2), ("valkey", 9, 1)
ENTRY, OTHER = array(bulk("5-1"), bulks("f", "v")), array(bulk("5-2"), bulks("f", "w"))
HUGE = 1 << 52


def between(serving: tuple[str, int, int], mirror: tuple[str, int, int]) -> dict[str, Any]:
    return {"serving_version": serving, "mirror_version": mirror}


CHANGED = [
    ("XADD k * f v", bulk("5-1"), "XADD k 5-1 f v"),
    ("XADD k nomkstream MAXLEN 9 * f v", bulk("5-1"), "XADD k MAXLEN = 9 5-1 f v"),
    ("XADD k MINID = 4 5-* f v", bulk("5-1"), "XADD k MINID = 4 5-1 f v"),
    ("XADD k KEEPREF 7 * *", bulk("7-0"), "XADD k 7-0 * *"),
    ("XTRIM k MAXLEN = 3", ONE, "XTRIM k MAXLEN = 3"),
    ("XTRIM k minid 3", ONE, "XTRIM k MINID = 3"),
    ("XDEL k 1 2", ONE, "XDEL k 1 2"),
    ("XSETID k 9-9", OK, "XSETID k 9-9"),
    ("XACK k g 1", ONE, "XACK k g 1"),
    ("XGROUP CREATE k g $ MKSTREAM", OK, "XGROUP CREATE k g $ MKSTREAM"),
    ("XGROUP SETID k g 0", OK, "XGROUP SETID k g 0"),
    ("XGROUP DELCONSUMER k g c", ZERO, "XGROUP DELCONSUMER k g c"),
    ("XGROUP CREATECONSUMER k g c", ONE, "XGROUP CREATECONSUMER k g c"),
    ("XDELEX k DELREF IDS 1 5", array(number(2)), "XDELEX k DELREF IDS 1 5"),
]
UNCHANGED = [
    ("XADD k NOMKSTREAM * f v", NIL),
    ("XTRIM k MAXLEN ~ 3", ZERO),
    ("XDEL k 1", ZERO),
    ("XACK k g 1", ZERO),
    ("XGROUP CREATECONSUMER k g c", ZERO),
    ("XGROUP DESTROY k g", ZERO),
    ("XGROUP CREATE k g $", b"-BUSYGROUP\r\n"),
]


@pytest.mark.parametrize(("command", "reply", "mirrored"), CHANGED)
def test_changed(command: str, reply: bytes, mirrored: str) -> None:
    assert sent(did(command, reply)) == [mirrored]


@pytest.mark.parametrize(("command", "reply"), UNCHANGED)
def test_unchanged(command: str, reply: bytes) -> None:
    assert did(command, reply) is NOTHING


@pytest.mark.parametrize(
    ("request_", "forwarded"),
    [
        ("XADD k MAXLEN ~ 9 * f v", "XADD k MAXLEN = 9 * f v"),
        ("xadd k nomkstream maxlen ~ 9 limit 0 * f ~", "xadd k nomkstream MAXLEN = 9 * f ~"),
        ("XADD k MINID ~ 9 LIMIT 5 NOMKSTREAM 1-1 f v", "XADD k NOMKSTREAM MINID = 9 1-1 f v"),
        ("XTRIM k MAXLEN ~ 9 LIMIT 5 ACKED", "XTRIM k MAXLEN = 9 ACKED"),
        # not approximate, or refused by the server: as they are
        ("XADD k MAXLEN = 9 * f ~", "XADD k MAXLEN = 9 * f ~"),
        ("XADD k MAXLEN 9 LIMIT 5 * f ~", "XADD k MAXLEN 9 LIMIT 5 * f ~"),
        ("XADD k * f ~", "XADD k * f ~"),
        ("XADD k MAXLEN ~ 9 LIMIT -1 * f v", "XADD k MAXLEN ~ 9 LIMIT -1 * f v"),
        ("XADD k MAXLEN ~ 9 LIMIT x * f v", "XADD k MAXLEN ~ 9 LIMIT x * f v"),
        ("XTRIM k MAXLEN ~", "XTRIM k MAXLEN ~"),
        ("XADD k MAXLEN", "XADD k MAXLEN"),
    ],
)
def test_trimming_is_made_exact_before_it_is_forwarded(request_: str, forwarded: str) -> None:
    rewrite = RULES[request_.split()[0].upper().encode()].rewrite
    assert rewrite is not None
    assert rewrite(words(request_)) == words(forwarded)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("XADD k MAXLEN ~ 9 * f v", bulk("5-1")),
        ("XTRIM k MAXLEN ~ 9", ONE),
        ("XADD k IDMP p i * f v", bulk("5-1")),  # Redis 8.6: the id may be an old one
        ("XADD k DELREF MAXLEN 9 * f v", bulk("5-1")),  # not on 6.2
    ],
)
def test_what_would_come_out_differently_is_copied(command: str, reply: bytes) -> None:
    assert copied(did(command, reply)) == ["k"]


def test_references_go_along_to_a_mirror_that_knows_them() -> None:
    effect = did("XADD k DELREF MAXLEN 9 * f v", bulk("5-1"), **between(V82, V82))
    assert sent(effect) == ["XADD k DELREF MAXLEN = 9 5-1 f v"]
    assert copied(did("XTRIM k MAXLEN 9 ACKED", ONE, **between(V82, V91))) == ["k"]


def test_only_mkstream_and_xadd_are_guarded() -> None:
    assert did("XADD k * f v", bulk("5-1")).guard == (b"k",)
    assert did("XGROUP CREATE k g 0 MKSTREAM", OK).guard == (b"k",)
    assert did("XDEL k 1", ONE).guard == ()


# -- XREADGROUP ------------------------------------------------------------------------------------------------------


def test_xreadgroup_reads_as_many_again_per_stream() -> None:
    got = array(array(bulk("k"), array(ENTRY, OTHER)), array(bulk("m"), array(ENTRY)))
    command = "XREADGROUP GROUP g c COUNT 9 BLOCK 0 NOACK STREAMS k l m > > 3"
    effect = did(command, got, **between(V70, V82))
    assert sent(effect) == [
        "XREADGROUP GROUP g c COUNT 2 NOACK STREAMS k >",
        "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS m 3",
    ]
    assert effect.keys == (b"k", b"m")
    assert effect.expected[0] == array(array(bulk("k"), array(ENTRY, OTHER)))


def test_xreadgroup_in_resp3_is_a_map() -> None:
    got = array(bulk("k"), array(ENTRY), kind="%")
    effect = did("XREADGROUP GROUP g c STREAMS k >", got, resp=3)
    assert sent(effect) == ["XREADGROUP GROUP g c COUNT 1 STREAMS k >"]
    assert effect.expected[0] is not None
    assert same_reply(effect.expected[0], got)


@pytest.mark.parametrize(
    ("version", "expected"),
    [(V62, []), (V70, []), (V82, ["XGROUP CREATECONSUMER k g c"]), (V91, ["XGROUP CREATECONSUMER k g c"])],
)
@pytest.mark.parametrize("reply", [b"*-1\r\n", b"_\r\n"])
def test_reading_nothing_creates_the_consumer_from_7_2_on(version: Any, expected: list[str], reply: bytes) -> None:
    assert sent(did("XREADGROUP GROUP g c STREAMS k >", reply, serving_version=version)) == expected


def test_reading_an_empty_history_creates_it_everywhere() -> None:
    got = array(array(bulk("k"), array()))
    assert sent(did("XREADGROUP GROUP g c STREAMS k 0", got)) == ["XGROUP CREATECONSUMER k g c"]


def test_the_same_stream_twice_or_an_unknown_option_is_copied() -> None:
    got = array(array(bulk("k"), array()))
    assert copied(did("XREADGROUP GROUP g c STREAMS k k > 0", got)) == ["k"]
    assert copied(did("XREADGROUP GROUP g c CLAIM 5 STREAMS k >", got)) == ["k"]


# -- XCLAIM, XAUTOCLAIM ----------------------------------------------------------------------------------------------


def test_xclaim_claims_what_was_claimed_at_the_same_time() -> None:
    got = array(ENTRY)
    effect = did("XCLAIM k g c 60000 5-1", got)
    assert sent(effect) == [f"XCLAIM k g c 0 5-1 TIME {NOW}"]
    assert effect.expected == (got,)


@pytest.mark.parametrize(
    ("options", "tail"),
    [
        ("IDLE 500 RETRYCOUNT 7 FORCE", f"TIME {NOW - 500} RETRYCOUNT 7 FORCE"),
        ("TIME 1800000000000 JUSTID", "TIME 1800000000007 JUSTID"),
        ("LASTID 9 force", f"TIME {NOW} FORCE LASTID 9"),
    ],
)
def test_xclaim_options(options: str, tail: str) -> None:
    got = bulks("5-1") if "JUSTID" in options else array(ENTRY)
    assert sent(did(f"XCLAIM k g c 0 5-1 {options}", got, clock_shift_ms=7)) == [f"XCLAIM k g c 0 5-1 {tail}"]


def test_ids_that_were_not_claimed_may_have_been_dropped_as_deleted() -> None:
    effect = did("XCLAIM k g c 0 5-1 05-2 6", array(ENTRY, OTHER), **between(V70, V91))
    assert sent(effect) == [f"XCLAIM k g c 0 5-1 5-2 TIME {NOW}", f"XCLAIM k g c {HUGE} 6"]
    assert effect.expected[1] == array()


@pytest.mark.parametrize(
    ("serving", "mirror", "expected"),
    [
        (V62, V62, []),
        (V62, V91, []),
        (V70, V70, [f"XCLAIM k g c {HUGE} 6"]),
        (V82, V70, ["XGROUP CREATECONSUMER k g c", f"XCLAIM k g c {HUGE} 6"]),
        (V91, V82, ["XGROUP CREATECONSUMER k g c", f"XCLAIM k g c {HUGE} 6"]),
    ],
)
def test_nothing_claimed(serving: Any, mirror: Any, expected: list[str]) -> None:
    assert sent(did("XCLAIM k g c 0 6", array(), **between(serving, mirror))) == expected


@pytest.mark.parametrize(("serving", "mirror"), [(V70, V82), (V82, V62)])
def test_nothing_claimed_where_the_mirror_would_do_something_else(serving: Any, mirror: Any) -> None:
    assert copied(did("XCLAIM k g c 0 6", array(), **between(serving, mirror))) == ["k"]


def test_a_last_id_moves_even_when_nothing_is_claimed() -> None:
    assert sent(did("XCLAIM k g c 0 6 LASTID 9", array())) == [f"XCLAIM k g c {HUGE} 6 LASTID 9"]


def test_a_deleted_message_without_its_id_is_copied() -> None:
    assert copied(did("XCLAIM k g c 0 6", array(NIL))) == ["k"]
    assert copied(did("XAUTOCLAIM k g c 0 0", array(bulk("0-0"), array(NIL)))) == ["k"]


def test_xautoclaim() -> None:
    got = array(bulk("0-0"), array(ENTRY), bulks("7-0", "8-0"))
    effect = did("XAUTOCLAIM k g c 0 0 COUNT 5", got, **between(V91, V91))
    assert sent(effect) == [f"XCLAIM k g c 0 5-1 TIME {NOW}", "XACK k g 7-0 8-0"]
    assert effect.expected == (array(ENTRY), None)
    nothing = array(bulk("0-0"), array(), array())
    assert sent(did("XAUTOCLAIM k g c 0 0", nothing, **between(V91, V91))) == ["XGROUP CREATECONSUMER k g c"]
    assert did("XAUTOCLAIM k g c 0 0", nothing, **between(V70, V91)) is NOTHING
    justid = array(bulk("0-0"), bulks("5-1"), array())
    assert sent(did("XAUTOCLAIM k g c 0 0 JUSTID", justid)) == [f"XCLAIM k g c 0 5-1 TIME {NOW} JUSTID"]


def test_commands_that_the_mirror_does_not_know_are_copied() -> None:
    assert copied(did("XDELEX k IDS 1 5", array(ONE), mirror=OLD)) == ["k"]
    assert copied(did("XACKDEL k g IDS 1 5", array(ONE), mirror=OLD)) == ["k"]
