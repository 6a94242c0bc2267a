"""One big key compared in pages: what the source has is looked up on the target, page by page, and the other way round
where the lengths differ. Names the first difference.

Not at one point of the history: a key that changes meanwhile may differ here without differing, so it is looked at
again by who asks.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import hiredis

from .. import streams
from ..client import Client
from ..codec import Unreadable
from ..compare import Difference, Status, difference, show
from ..errors import ServerRefuses
from ..rebuild import batches
from ..url import Url
from ..values import MISSING, Group, Pending, State, Stream
from .pages import ALL_PENDING, MAX_PAGE_ELEMENTS, PAGE_BYTES, PAGERS, PIECE_BYTES, scan_elements
from .sides import Facts, expect
from .tally import Place

EXPIRES = re.compile(r"field '.*' expires ")


@dataclass(frozen=True, slots=True)
class _Sides:
    source: Client
    target: Client
    facts: tuple[Facts, Facts]
    key: bytes
    per_page: int
    shift_ms: int
    tolerance_ms: int
    names: tuple[str, str] = ("source", "target")

    def turned(self) -> _Sides:
        facts = self.facts[1], self.facts[0]
        names = self.names[1], self.names[0]
        return _Sides(
            self.target, self.source, facts, self.key, self.per_page, -self.shift_ms, self.tolerance_ms, names
        )


Meant = Callable[[State, State], tuple[State, State]]
"""What is to be compared of the states of a key on both sides."""


async def compare_big(
    source: Url,
    target: Url,
    facts: tuple[Facts, Facts],
    place: Place,
    *,
    shift_ms: int,
    tolerance_ms: int,
    meant: Meant,
) -> Difference | Unreadable | None:
    """The first difference, None when there is none. Errors: ConnectError, ConnectionLost."""
    db, key = place
    async with (
        Client.open(source.with_db(db), name="crossfade-compare") as one,
        Client.open(target.with_db(db), name="crossfade-compare") as other,
    ):
        try:
            states = meant(await _state(one, key), await _state(other, key))
            found = difference(*states, shift_ms=shift_ms, tolerance_ms=tolerance_ms)
            kind = states[0].kind
            if found is not None or kind == MISSING:
                return found
            if kind not in PAGES:
                return Unreadable(f"a big key of type {kind.decode()}: it cannot be compared in pages")
            length = PAGERS[kind].length
            lengths = expect(await one.call(length, key), "reading"), expect(await other.call(length, key), "reading")
            size = await one.call(b"MEMORY", b"USAGE", key)
            average = max(1, size // max(1, lengths[0])) if isinstance(size, int) else 1000
            per_page = min(MAX_PAGE_ELEMENTS, max(1, PAGE_BYTES // average))
            sides = _Sides(one, other, facts, key, per_page, shift_ms, tolerance_ms)
            detail = await PAGES[kind](sides)
            if not detail and lengths[0] != lengths[1]:
                detail = await PAGES[kind](sides.turned())
                detail = detail or f"length {lengths[0]} on the source, {lengths[1]} on the target"
        except ServerRefuses as problem:
            return Unreadable(problem.text)
    if not detail:
        return None
    return Difference(key, Status.TTL if EXPIRES.match(detail) else Status.VALUE, detail)


async def _state(client: Client, key: bytes) -> State:
    """Type and deadline, as a state without a value."""
    reply = expect(await client.transaction([[b"TIME"], [b"PTTL", key], [b"TYPE", key]]), "EXEC")
    (seconds, micros), left, kind = (expect(element, "reading") for element in reply)
    now = int(seconds) * 1000 + int(micros) // 1000
    if kind == MISSING or left == -2:
        return State(key, MISSING, read_ms=now)
    return State(key, kind, now + left if left >= 0 else None, now, value=b"")


# --- each type: the first difference, or "" ---


def _on(sides: _Sides, which: int) -> str:
    return f" on the {sides.names[which]}"


async def _both(sides: _Sides, command: list[bytes]) -> tuple[Any, Any]:
    name = command[0].decode()
    return expect(await sides.source.call(*command), name), expect(await sides.target.call(*command), name)


async def _string(sides: _Sides) -> str:
    start = 0
    while True:
        window = [b"GETRANGE", sides.key, b"%d" % start, b"%d" % (start + PIECE_BYTES - 1)]
        a, b = await _both(sides, window)
        if a != b:
            shorter = min(len(a), len(b))
            at = next((index for index in range(shorter) if a[index] != b[index]), shorter)
            return f"byte {start + at} differs"
        if len(a) < PIECE_BYTES:
            return ""
        start += PIECE_BYTES


async def _list(sides: _Sides) -> str:
    start = 0
    while True:
        window = [b"LRANGE", sides.key, b"%d" % start, b"%d" % (start + sides.per_page - 1)]
        a, b = await _both(sides, window)
        if a != b:
            shorter = min(len(a), len(b))
            at = next((index for index in range(shorter) if a[index] != b[index]), shorter)
            one, other = (show(items[at]) if at < len(items) else "nothing" for items in (a, b))
            return f"index {start + at}: {one}{_on(sides, 0)}, {other}{_on(sides, 1)}"
        if len(a) < sides.per_page:
            return ""
        start += sides.per_page


def _scan(sides: _Sides, command: bytes) -> AsyncGenerator[list[bytes], None]:
    return scan_elements(sides.source, command, sides.key, sides.per_page)


async def _set(sides: _Sides) -> str:
    async with aclosing(_scan(sides, b"SSCAN")) as pages:
        async for members in pages:
            there = expect(await sides.target.call(b"SMISMEMBER", sides.key, *members), "SMISMEMBER")
            absent = [member for member, found in zip(members, there, strict=True) if not found]
            if absent:
                return f"member {show(min(absent))} only{_on(sides, 0)}"
    return ""


async def _zset(sides: _Sides) -> str:
    async with aclosing(_scan(sides, b"ZSCAN")) as pages:
        async for flat in pages:
            there = expect(await sides.target.call(b"ZMSCORE", sides.key, *flat[::2]), "ZMSCORE")
            for member, a, b in zip(flat[::2], flat[1::2], there, strict=True):
                if b is None:
                    return f"member {show(member)} only{_on(sides, 0)}"
                if float(a) != float(b):
                    return f"member {show(member)}: {float(a)}{_on(sides, 0)}, {float(b)}{_on(sides, 1)}"
    return ""


async def _hash(sides: _Sides) -> str:
    ask = any(b"HPEXPIRETIME" in facts.commands for facts in sides.facts)
    async with aclosing(_scan(sides, b"HSCAN")) as pages:
        async for flat in pages:
            there = expect(await sides.target.call(b"HMGET", sides.key, *flat[::2]), "HMGET")
            for name, a, b in zip(flat[::2], flat[1::2], there, strict=True):
                if b is None:
                    return f"field {show(name)} only{_on(sides, 0)}"
                if a != b:
                    return f"field {show(name)}: {show(a)}{_on(sides, 0)}, {show(b)}{_on(sides, 1)}"
            if ask and (detail := await _deadlines(sides, flat[::2])):
                return detail
    return ""


async def _deadlines(sides: _Sides, fields: list[bytes]) -> str:
    """A side that does not know deadlines of fields has none."""
    known = [b"HPEXPIRETIME" in facts.commands for facts in sides.facts]
    for names in batches(fields):
        command = [b"HPEXPIRETIME", sides.key, b"FIELDS", b"%d" % len(names), *names]
        nothing = [-1] * len(names)
        one = expect(await sides.source.call(*command), "HPEXPIRETIME") if known[0] else nothing
        other = expect(await sides.target.call(*command), "HPEXPIRETIME") if known[1] else nothing
        for name, a, b in zip(names, one or nothing, other or nothing, strict=True):
            if (a < 0) != (b < 0) or (a >= 0 and abs(b - a - sides.shift_ms) > sides.tolerance_ms):
                return f"field {show(name)} {_expires(sides, a, b)}"
    return ""


def _expires(sides: _Sides, a: int, b: int) -> str:
    if a >= 0 and b >= 0:
        late = b - a - sides.shift_ms
        return f"expires {abs(late)} ms {'later' if late > 0 else 'earlier'}{_on(sides, 1)}"
    return f"expires only{_on(sides, 0 if a >= 0 else 1)}"


async def _stream(sides: _Sides) -> str:
    start = b"-"
    while True:
        window = [b"XRANGE", sides.key, start, b"+", b"COUNT", b"%d" % sides.per_page]
        a, b = await _both(sides, window)
        for one, other in zip(a, b, strict=False):
            if one != other:
                earlier = min(one[0], other[0], key=streams.id_order)
                where = " differs" if one[0] == other[0] else f" only{_on(sides, 0 if earlier == one[0] else 1)}"
                return f"entry {show(earlier)}{where}"
        if len(a) != len(b):
            first, which = (a[len(b)], 0) if len(a) > len(b) else (b[len(a)], 1)
            return f"entry {show(first[0])} only{_on(sides, which)}"
        if len(a) < sides.per_page:
            break
        start = b"(" + a[-1][0]
    states = await _groups(sides.source, sides.key), await _groups(sides.target, sides.key)
    found = difference(*states, shift_ms=sides.shift_ms, tolerance_ms=sides.tolerance_ms)
    return found.detail if found is not None else ""


async def _groups(client: Client, key: bytes) -> State:
    """A stream's groups and last id, as a state without entries."""
    info, rows = await client.pipeline([[b"XINFO", b"STREAM", key], [b"XINFO", b"GROUPS", key]])
    groups = []
    for row in map(streams.pairs, expect(rows, "XINFO GROUPS")):
        name = row[b"name"]
        commands = [[b"XINFO", b"CONSUMERS", key, name], [b"XPENDING", key, name, b"-", b"+", ALL_PENDING]]
        consumers, pending = await client.pipeline(commands)
        if isinstance(consumers, hiredis.ReplyError) or isinstance(pending, hiredis.ReplyError):
            continue  # it went away in between
        names = tuple(streams.pairs(consumer)[b"name"] for consumer in consumers)
        entries = tuple(Pending(identity, consumer, 0, count) for identity, consumer, _, count in pending)
        groups.append(Group(name, row[b"last-delivered-id"], row.get(b"entries-read"), names, entries))
    last = streams.pairs(expect(info, "XINFO STREAM"))[b"last-generated-id"]
    return State(key, b"stream", value=Stream({}, last, groups=tuple(groups)))


PAGES: Mapping[bytes, Callable[[_Sides], Any]] = {
    b"string": _string,
    b"list": _list,
    b"set": _set,
    b"zset": _zset,
    b"hash": _hash,
    b"stream": _stream,
}
