"""Owns when two states of one key, read in form STRUCT on two servers, are equal, and what to call their first
difference. Pure; the clocks are those inside the states.

Not compared, as servers of different versions or histories count them differently: entries-added, entries-read,
max-deleted-id and a stream's delivery and seen times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from typing import Any

from .values import Group, Hash, Opaque, SortedSet, State, Stream, Value

MAX_SHOWN_BYTES = 60  # of a key, member or value in a text
HLL = b"HYLL"
HLL_CACHE = slice(8, 16)
A, B = "\x01", "\x02"  # the names of the two servers, until they are known; what is shown of values is printable
FOOTER_BYTES = 10  # of a DUMP payload: version and checksum, which differ between versions


class Status(Enum):
    MISSING = "missing"  # on b
    EXTRA = "extra"  # on b
    TYPE = "type"
    TTL = "ttl"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Difference:
    key: bytes
    status: Status
    detail: str

    def __str__(self) -> str:
        return f"{self.status.value} {show(self.key)}: {self.detail}"


def difference(
    a: State,
    b: State,
    *,
    shift_ms: int,
    tolerance_ms: int,
    first: int = 0,
    names: tuple[str, str] = ("source", "target"),
) -> Difference | None:
    """The first difference of b from a, or None. `names`: what the detail calls the two servers. `shift_ms`: b's clock
    minus a's. Deadlines may be `tolerance_ms` apart, and what is that close to its deadline may already be gone on one
    side. `first`: the index in the key of the first element of a list, or of the first byte of a string, that only show
    a part of it."""
    judge = _Judge(a, b, shift_ms, tolerance_ms, first)
    found = judge.existence() if a.missing or b.missing else judge.kind() or judge.deadline() or judge.value()
    if found is None:
        return None
    status, detail = found
    return Difference(a.key, status, detail.replace(A, names[0]).replace(B, names[1]))


Found = tuple[Status, str] | None


@dataclass(frozen=True, slots=True)
class _Judge:
    a: State
    b: State
    shift_ms: int
    tolerance_ms: int
    first: int

    def existence(self) -> Found:
        """For a key that is missing on one side, or on both."""
        if not self.a.missing and not self.a_may_be_due(self.a.deadline_ms):
            return Status.MISSING, f"a {_name(self.a)}, not on the {B}"
        if not self.b.missing and not self.b_may_be_due(self.b.deadline_ms):
            return Status.EXTRA, f"a {_name(self.b)}, not on the {A}"
        return None

    def a_may_be_due(self, deadline_ms: int | None) -> bool:
        """Whether what has this deadline on a may already have expired on b when b was read."""
        return deadline_ms is not None and deadline_ms + self.shift_ms <= self.b.read_ms + self.tolerance_ms

    def b_may_be_due(self, deadline_ms: int | None) -> bool:
        return deadline_ms is not None and deadline_ms - self.shift_ms <= self.a.read_ms + self.tolerance_ms

    def kind(self) -> Found:
        if self.a.kind == self.b.kind:
            return None
        return Status.TYPE, f"{_name(self.a)} on the {A}, {_name(self.b)} on the {B}"

    def deadline(self) -> Found:
        text = self._deadlines_differ(self.a.deadline_ms, self.b.deadline_ms)
        return (Status.TTL, text) if text else None

    def _deadlines_differ(self, a: int | None, b: int | None) -> str:
        if a is None and b is None:
            return ""
        if a is None or b is None:
            return f"expires only on the {B if a is None else A}"
        late = b - a - self.shift_ms
        return "" if abs(late) <= self.tolerance_ms else f"expires {abs(late)} ms {'later' if late > 0 else 'earlier'}"

    def value(self) -> Found:
        if isinstance(self.a.value, Hash) and isinstance(self.b.value, Hash):
            return self._hashes(self.a.value, self.b.value)
        if self.a.value is None or type(self.a.value) is not type(self.b.value):
            return Status.VALUE, "not read in the same way on both sides"
        if isinstance(self.a.value, bytes | tuple):
            text = _sequences(self.a.value, self.b.value, self.first)
        else:
            text = COMPARISONS[type(self.a.value)](self.a.value, self.b.value)
        return (Status.VALUE, text) if text else None

    def _hashes(self, a: Hash, b: Hash) -> Found:
        only_a = {name for name in a.fields.keys() - b.fields.keys() if not self.a_may_be_due(a.deadlines.get(name))}
        only_b = {name for name in b.fields.keys() - a.fields.keys() if not self.b_may_be_due(b.deadlines.get(name))}
        common = a.fields.keys() & b.fields.keys()
        changed = {name for name in common if a.fields[name] != b.fields[name]}
        if text := _members("field", only_a, only_b) or _changed("field", a.fields, b.fields, changed):
            return Status.VALUE, text
        for name in sorted(common & (a.deadlines.keys() | b.deadlines.keys())):
            if text := self._deadlines_differ(a.deadlines.get(name), b.deadlines.get(name)):
                return Status.TTL, f"field {show(name)} {text}"
        return None


# --- values: an empty text when equal ---


def _sequences(a: Any, b: Any, first: int) -> str:
    return _strings(a, b, first) if isinstance(a, bytes) else _lists(a, b, first)


def _strings(a: bytes, b: bytes, first: int) -> str:
    if a == b:
        return ""
    if a.startswith(HLL) and b.startswith(HLL):  # their cached count is written by PFCOUNT, a read
        a, b = (value[: HLL_CACHE.start] + bytes(8) + value[HLL_CACHE.stop :] for value in (a, b))
        if a == b:
            return ""
    if len(a) != len(b):
        return f"{len(a)} bytes on the {A}, {len(b)} on the {B}"
    index = next(index for index, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    return f"byte {first + index} differs"


def _lists(a: tuple[bytes, ...], b: tuple[bytes, ...], first: int) -> str:
    for index, (x, y) in enumerate(zip_longest(a, b)):
        if x != y:
            return f"index {first + index}: {show(x)} on the {A}, {show(y)} on the {B}"
    return ""


def _sets(a: frozenset[bytes], b: frozenset[bytes]) -> str:
    return _members("member", a - b, b - a)


def _sorted_sets(a: SortedSet, b: SortedSet) -> str:
    return _maps("member", a.scores, b.scores)


def _streams(a: Stream, b: Stream) -> str:
    if text := _maps("entry", a.entries, b.entries):
        return text
    if a.last_id != b.last_id:
        return f"last id {show(a.last_id)} on the {A}, {show(b.last_id)} on the {B}"
    groups_a, groups_b = ({group.name: group for group in stream.groups} for stream in (a, b))
    if text := _members("group", groups_a.keys() - groups_b.keys(), groups_b.keys() - groups_a.keys()):
        return text
    found = (_groups(groups_a[name], groups_b[name]) for name in sorted(groups_a))
    return next(filter(None, found), "")


def _groups(a: Group, b: Group) -> str:
    if a.last_id != b.last_id:
        return f"group {show(a.name)}: last id {show(a.last_id)} on the {A}, {show(b.last_id)} on the {B}"
    text = _members("consumer", set(a.consumers) - set(b.consumers), set(b.consumers) - set(a.consumers)) or _maps(
        "pending entry",
        {entry.id: (entry.consumer, b"%d deliveries" % entry.count) for entry in a.pending},
        {entry.id: (entry.consumer, b"%d deliveries" % entry.count) for entry in b.pending},
    )
    return f"group {show(a.name)}: {text}" if text else ""


def _opaque(a: Opaque, b: Opaque) -> str:
    return "" if a.payload[:-FOOTER_BYTES] == b.payload[:-FOOTER_BYTES] else "the DUMP payloads differ"


COMPARISONS: Mapping[type[Value], Callable[[Any, Any], str]] = {
    frozenset: _sets,
    SortedSet: _sorted_sets,
    Stream: _streams,
    Opaque: _opaque,
}


def _maps(what: str, a: Mapping[bytes, Any], b: Mapping[bytes, Any]) -> str:
    if a == b:
        return ""
    changed = (name for name in a.keys() & b.keys() if a[name] != b[name])
    return _members(what, a.keys() - b.keys(), b.keys() - a.keys()) or _changed(what, a, b, changed)


def _members(what: str, only_a: Iterable[bytes], only_b: Iterable[bytes]) -> str:
    for missing, where in ((only_a, A), (only_b, B)):
        if (first := min(missing, default=None)) is not None:
            return f"{what} {show(first)} only on the {where}"
    return ""


def _changed(what: str, a: Mapping[bytes, Any], b: Mapping[bytes, Any], changed: Iterable[bytes]) -> str:
    first = min(changed, default=None)
    return "" if first is None else f"{what} {show(first)}: {show(a[first])} on the {A}, {show(b[first])} on the {B}"


def show(value: object) -> str:
    """A short, printable form of a key, member, score or value."""
    if isinstance(value, tuple):
        return " ".join(map(show, value[:4])) + (" ..." if len(value) > 4 else "")
    if not isinstance(value, bytes):
        return "nothing" if value is None else str(value)
    return repr(value[:MAX_SHOWN_BYTES])[1:] + ("..." if len(value) > MAX_SHOWN_BYTES else "")


def _name(state: State) -> str:
    return state.kind.decode("ascii", "replace")
