"""The closer look of a comparison: keys that differ at first sight are read by type on both sides, and judged.

A key is read at one point on either side, big ones in pages (`comparing_pages`), but the two points are not the same: a
key that changes meanwhile may differ here without differing. To look again is for `comparing`.

Where only some types are meant, a key of another type on the source is as good as none there, and then one of another
type on the target is none of our business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import hiredis

from ..codec import Believed, Form, Unreadable, WrongType, parse, read_commands
from ..compare import Difference, difference
from ..counts import verdict
from ..findings import Finding
from ..url import Url
from ..values import MISSING, State
from . import bulk
from .comparing_pages import compare_big
from .copier import GROUP_BYTES, UNKNOWN_BYTES
from .pipe import Pipe
from .sides import Facts
from .tally import Place

ATTEMPTS = 8  # at a key whose type changes whenever it is read


class Look:
    """At keys on two open pipes. `shift_ms`: the target's clock minus the source's, kept up to date by its owner."""

    def __init__(
        self,
        urls: tuple[Url, Url],
        pipes: tuple[Pipe, Pipe],
        facts: tuple[Facts, Facts],
        *,
        types: frozenset[bytes],
        tolerance_ms: int,
        paged_bytes: int,
    ) -> None:
        self.shift_ms = 0
        self._urls, self._pipes, self._facts = urls, pipes, facts
        self._types = types
        self._tolerance_ms = tolerance_ms
        self._paged_bytes = paged_bytes

    async def sizes(self, db: int, names: list[bytes]) -> list[int]:
        """The larger of the two sides' sizes in memory, of each key. Errors: ConnectionLost."""
        data, count = bulk.probe(names, types=False)
        tickets = [pipe.send(data, count, db) for pipe in self._pipes]
        told = [await ticket.wait() for ticket in tickets]
        if any(hiredis.ReplyError in set(map(type, replies)) for replies in told):
            return [UNKNOWN_BYTES] * count
        return [max(a or 0, b or 0) for a, b in zip(*told, strict=True)]

    async def differences(self, places: Iterable[Place], big: set[Place]) -> dict[Place, Finding]:
        """What differs among these keys, of which some are known to be `big`. Errors: ConnectError, ConnectionLost."""
        found: dict[Place, Finding] = {}
        for db, keys in by_db(places).items():
            sizes = await self.sizes(db, bulk.encoded(keys))
            small: list[bytes] = []
            small_sizes: list[int] = []
            for key, size in zip(keys, sizes, strict=True):
                if size >= self._paged_bytes or (db, key) in big:
                    await self._in_pages((db, key), found)
                else:
                    small.append(key)
                    small_sizes.append(size)
            start = 0
            for end in bulk.cut(small_sizes, bulk.BLOCK_KEYS, GROUP_BYTES) if small else []:
                await self._by_type(db, small[start:end], found)
                start = end
        return found

    async def _in_pages(self, place: Place, found: dict[Place, Finding]) -> None:
        outcome = await compare_big(
            *self._urls,
            self._facts,
            place,
            shift_ms=self.shift_ms,
            tolerance_ms=self._tolerance_ms,
            meant=self._meant,
        )
        _note(place, outcome, found)

    async def _by_type(self, db: int, keys: list[bytes], found: dict[Place, Finding]) -> None:
        first = await self._states(0, db, keys)
        second = await self._states(1, db, keys)
        for key, a, b in zip(keys, first, second, strict=True):
            outcome: Difference | Unreadable | None
            if isinstance(a, State) and isinstance(b, State):
                states = self._meant(a, b)
                outcome = difference(*states, shift_ms=self.shift_ms, tolerance_ms=self._tolerance_ms)
            else:
                outcome = a if isinstance(a, Unreadable) else b if isinstance(b, Unreadable) else None
            _note((db, key), outcome, found)

    def _meant(self, a: State, b: State) -> tuple[State, State]:
        """The two sides' states of one key, as far as they are to be compared."""
        if not self._types or a.kind in self._types:
            return a, b
        return _none(a), b if b.kind in self._types else _none(b)

    async def _states(self, side: int, db: int, keys: Iterable[bytes]) -> list[State | Unreadable]:
        """The keys' states in form STRUCT, each at one point."""
        known: dict[bytes, State | Unreadable] = {}
        believed: dict[bytes, Believed] = dict.fromkeys(keys)
        left = list(believed)
        for _ in range(ATTEMPTS):
            if not left:
                break
            reads = [read_commands(k, Form.STRUCT, believed[k], known=self._facts[side].commands) for k in left]
            blocks = [[[b"MULTI"], *commands, [b"EXEC"]] for commands in reads]
            replies = await self._pipes[side].pipeline([command for block in blocks for command in block], db)
            position, again = 0, []
            for key, block in zip(left, blocks, strict=True):
                part = replies[position : position + len(block)]
                position += len(block)
                outcome = _parsed(key, part, believed[key])
                if isinstance(outcome, WrongType):
                    believed[key] = outcome
                    again.append(key)
                else:
                    known[key] = outcome
            left = again
        return [known.get(key, Unreadable("its type changes faster than it can be read")) for key in believed]


def by_db(places: Iterable[Place]) -> dict[int, list[bytes]]:
    """The keys of each db."""
    found: dict[int, list[bytes]] = {}
    for db, key in places:
        found.setdefault(db, []).append(key)
    return found


def _none(state: State) -> State:
    return replace(state, kind=MISSING, deadline_ms=None, value=None)


def _note(place: Place, outcome: Difference | Unreadable | None, found: dict[Place, Finding]) -> None:
    if outcome is not None:
        found[place] = Finding(*place, *verdict(outcome))


def _parsed(key: bytes, replies: list[Any], believed: Believed) -> State | WrongType | Unreadable:
    if not isinstance(replies[-1], list):
        return Unreadable(str(next((reply for reply in replies if isinstance(reply, hiredis.ReplyError)), "no EXEC")))
    return parse(key, Form.STRUCT, replies[-1], believed)
