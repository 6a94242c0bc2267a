"""What counts as a difference between two states of a key, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.compare import Difference, Status, difference, show
from backfill.values import MISSING, Group, Hash, Opaque, Pending, SortedSet, State, Stream, Value
from tests.backfill.strategies import NOW_MS, states

KINDS: dict[type, bytes] = {bytes: b"string", tuple: b"list", frozenset: b"set", SortedSet: b"zset", Hash: b"hash"}
KINDS |= {Stream: b"stream", Opaque: b"a-module"}
SHIFT_MS = 5_000


def state(value: Value, deadline_ms: int | None = None, read_ms: int = NOW_MS) -> State:
    return State(b"k", KINDS[type(value)], deadline_ms, read_ms, value=value)


def missing(read_ms: int = NOW_MS) -> State:
    return State(b"k", MISSING, read_ms=read_ms)


def stream(**changes: Any) -> Stream:
    pending = (Pending(b"1-0", b"anna", 5, 1),)
    group = Group(b"g", b"1-0", 1, (b"anna", b"bert"), pending)
    return replace(Stream({b"1-0": (b"a", b"b")}, b"1-0", 1, b"0-0", (group,)), **changes)


def group(**changes: Any) -> Stream:
    return stream(groups=(replace(stream().groups[0], **changes),))


SAME: list[tuple[Value, Value]] = [
    (Stream({}, b"0-0"), Stream({}, b"0-0", 0, b"0-0")),
    (stream(), stream(entries_added=77, max_deleted_id=b"1-1")),
    (stream(), group(entries_read=None)),
    (stream(), group(pending=(Pending(b"1-0", b"anna", 999, 1),))),
    (stream(), group(consumers=(b"bert", b"anna"))),
    (Opaque(b"payload" + b"x" * 10), Opaque(b"payload" + b"y" * 10)),
    (SortedSet({b"a": 1.0, b"b": 0.1}), SortedSet({b"b": 0.1, b"a": 1})),
]
DIFFERENT: list[tuple[Value, Value, str]] = [
    (b"abc", b"abd", "byte 2 differs"),
    (b"abc", b"abcd", "3 bytes on the source, 4 on the target"),
    ((b"a", b"b"), (b"a", b"c"), "index 1: 'b' on the source, 'c' on the target"),
    ((b"a",), (b"a", b"c"), "index 1: nothing on the source, 'c' on the target"),
    (frozenset([b"a", b"b"]), frozenset([b"a"]), "member 'b' only on the source"),
    (frozenset([b"a"]), frozenset([b"a", b"\xff"]), r"member '\xff' only on the target"),
    (SortedSet({b"a": 1}), SortedSet({b"a": 2}), "member 'a': 1 on the source, 2 on the target"),
    (Hash({b"a": b"1"}), Hash({b"a": b"2"}), "field 'a': '1' on the source, '2' on the target"),
    (Hash({b"a": b"1"}), Hash({b"b": b"1"}), "field 'a' only on the source"),
    (stream(), stream(entries={b"1-0": (b"a", b"c")}), "entry '1-0': 'a' 'b' on the source, 'a' 'c' on the target"),
    (stream(), stream(entries={}), "entry '1-0' only on the source"),
    (stream(), stream(last_id=b"2-0"), "last id '1-0' on the source, '2-0' on the target"),
    (stream(), stream(groups=()), "group 'g' only on the source"),
    (stream(), group(last_id=b"0-0"), "group 'g': last id '1-0' on the source, '0-0' on the target"),
    (stream(), group(consumers=(b"anna",)), "group 'g': consumer 'bert' only on the source"),
    (stream(), group(pending=()), "group 'g': pending entry '1-0' only on the source"),
    (
        stream(),
        group(pending=(Pending(b"1-0", b"bert", 5, 2),)),
        "group 'g': pending entry '1-0': 'anna' '1 deliveries' on the source, 'bert' '2 deliveries' on the target",
    ),
    (Opaque(b"payload" + b"x" * 10), Opaque(b"paYload" + b"x" * 10), "the DUMP payloads differ"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_equal(a: Value, b: Value) -> None:
    assert difference(state(a), state(b), shift_ms=0, tolerance_ms=0) is None
    assert difference(state(b), state(a), shift_ms=0, tolerance_ms=0) is None


@pytest.mark.parametrize(("a", "b", "detail"), DIFFERENT)
def test_different(a: Value, b: Value, detail: str) -> None:
    found = difference(state(a), state(b), shift_ms=0, tolerance_ms=10**9)
    assert found == Difference(b"k", Status.VALUE, detail)
    assert str(found) == f"value 'k': {detail}"
    assert difference(state(b), state(a), shift_ms=0, tolerance_ms=10**9) is not None


def test_types() -> None:
    found = difference(state(b"x"), state((b"x",)), shift_ms=0, tolerance_ms=0)
    assert found == Difference(b"k", Status.TYPE, "string on the source, list on the target")


def test_states_that_were_not_read_as_values_are_not_called_equal() -> None:
    dump = State(b"k", b"string", payload=b"x")
    found = difference(dump, dump, shift_ms=0, tolerance_ms=0)
    assert found is not None
    assert found.status is Status.VALUE


# --- deadlines; b's clock is SHIFT_MS ahead ---


@pytest.mark.parametrize(("late_ms", "same"), [(0, True), (50, True), (-50, True), (51, False), (-51, False)])
def test_deadlines_have_a_tolerance(late_ms: int, same: bool) -> None:
    a, b = state(b"x", NOW_MS + 9000), state(b"x", NOW_MS + 9000 + SHIFT_MS + late_ms)
    found = difference(a, b, shift_ms=SHIFT_MS, tolerance_ms=50)
    assert (found is None) == same
    if found is not None:
        assert found == Difference(b"k", Status.TTL, f"expires 51 ms {'later' if late_ms > 0 else 'earlier'}")


def test_a_deadline_on_one_side_only() -> None:
    with_deadline, without = state(b"x", NOW_MS + 9000), state(b"x")
    for a, b, where in ((with_deadline, without, "source"), (without, with_deadline, "target")):
        found = difference(a, b, shift_ms=0, tolerance_ms=10**12)
        assert found == Difference(b"k", Status.TTL, f"expires only on the {where}")


@pytest.mark.parametrize(("left_ms", "same"), [(-10, True), (50, True), (51, False)])
def test_a_key_at_its_deadline_may_be_gone_on_one_side(left_ms: int, same: bool) -> None:
    """`left_ms`: its life left when the other side was read, in whose clock that read happened."""
    a = state(b"x", NOW_MS + left_ms)
    found = difference(a, missing(NOW_MS + SHIFT_MS), shift_ms=SHIFT_MS, tolerance_ms=50)
    assert found == (None if same else Difference(b"k", Status.MISSING, "a string, not on the target"))
    b = state(b"x", NOW_MS + SHIFT_MS + left_ms, NOW_MS + SHIFT_MS)
    found = difference(missing(), b, shift_ms=SHIFT_MS, tolerance_ms=50)
    assert found == (None if same else Difference(b"k", Status.EXTRA, "a string, not on the source"))


def test_a_key_without_deadline_is_not_excused() -> None:
    found = difference(state(b"x"), missing(), shift_ms=0, tolerance_ms=10**12)
    assert found is not None
    assert found.status is Status.MISSING
    assert difference(missing(), missing(), shift_ms=0, tolerance_ms=0) is None


def test_fields_have_deadlines_too() -> None:
    both = Hash({b"a": b"1", b"b": b"2"}, {b"b": NOW_MS + 100})
    gone = Hash({b"a": b"1"})
    assert difference(state(both), state(gone), shift_ms=0, tolerance_ms=100) is None
    assert difference(state(gone), state(both), shift_ms=0, tolerance_ms=100) is None
    found = difference(state(both), state(gone), shift_ms=0, tolerance_ms=99)
    assert found == Difference(b"k", Status.VALUE, "field 'b' only on the source")
    later = Hash(both.fields, {b"b": NOW_MS + 200})
    found = difference(state(both), state(later), shift_ms=0, tolerance_ms=99)
    assert found == Difference(b"k", Status.TTL, "field 'b' expires 100 ms later")
    found = difference(state(both), state(Hash(both.fields)), shift_ms=0, tolerance_ms=99)
    assert found == Difference(b"k", Status.TTL, "field 'b' expires only on the source")


# --- any states ---


@given(states(), st.integers(-(10**6), 10**6))
def test_a_state_equals_itself(a: State, shift_ms: int) -> None:
    assert difference(a, a, shift_ms=0, tolerance_ms=0) is None
    if a.deadline_ms is not None and shift_ms:
        assert difference(a, a, shift_ms=shift_ms, tolerance_ms=abs(shift_ms) - 1) is not None


@given(states(), states())
def test_differences_are_mutual(a: State, b: State) -> None:
    there = difference(a, b, shift_ms=0, tolerance_ms=0)
    back = difference(b, a, shift_ms=0, tolerance_ms=0)
    assert (there and there.status) == (back and back.status)


def test_long_and_odd_values_are_shown_short() -> None:
    assert show(b"x" * 1000) == "'" + "x" * 60 + "'..."
    assert show(b"'\n\x00") == r"\"'\n\x00\"".replace('\\"', '"')
    assert show((b"a", b"b", b"c", b"d", b"e")) == "'a' 'b' 'c' 'd' ..."
    assert show(1.5) == "1.5"


def test_the_two_servers_have_the_names_that_are_given() -> None:
    """After a flip the first one is the target."""
    a, b = State(b"k", b"string", None, 0, value=b"x"), State(b"k", b"list", None, 0, value=(b"x",))
    found = difference(a, b, shift_ms=0, tolerance_ms=0, names=("target", "source"))
    assert found is not None and found.detail == "string on the target, list on the source"
