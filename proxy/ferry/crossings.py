"""Which keys of a crossing were touched while it was open. Pure.

Owns the log of what happens to keys while a ferry runs, in *ticks* of some milliseconds: the journal's entries (every
write, before it is sent), and the keys that became clean (they were copied in the lane). A tick is settled when what
was sent before its end has been answered by the serving side and acknowledged by the mirror side. A crossing is touched
by every tick that was not settled when it was opened, and by every later one; and by every mark that is there at its
end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from proxy.dirty import DirtyKeys, Place
from proxy.journal import BARRIER_DB, entries

OBJECT_BYTES = 50  # of an entry in memory, besides its text


@dataclass(slots=True)
class Tick:
    """What happened in a short time. `written` and `cleaned` are filled from outside until the next tick begins."""

    number: int
    written: list[bytes] = field(default_factory=list)  # as the journal commits them
    cleaned: list[Place] = field(default_factory=list)
    _read: int = 0
    _keys: dict[int, set[bytes]] = field(default_factory=dict)  # by db

    def touches(self, db: int, keys: frozenset[bytes]) -> Set[bytes]:
        """Which of these keys."""
        known = self._keys
        for body in self.written[self._read :]:
            for where, key in entries(body):
                known.setdefault(where, set()).add(key)
        self._read = len(self.written)
        if BARRIER_DB in known:  # a command that touches every key
            return keys
        found = keys & known.get(db, frozenset())
        return found | {key for where, key in self.cleaned if where == db and key in keys} if self.cleaned else found

    @property
    def size(self) -> int:
        """Bytes of what it knows, about."""
        names = sum(map(len, self.written)) + sum(len(key) for _, key in self.cleaned)
        return names + OBJECT_BYTES * (len(self.written) + len(self.cleaned))


@dataclass(frozen=True, slots=True)
class Crossing:
    """Keys of one db that are being copied. `page`: theirs, in the backfill's progress."""

    number: int
    db: int
    keys: frozenset[bytes]
    page: int
    since: int  # the first tick that may touch it


class Crossings:
    """The open crossings of one ferry, and the log that they are judged by."""

    def __init__(self, dirty: DirtyKeys) -> None:
        self.open: dict[int, Crossing] = {}
        self._dirty = dirty
        self._ticks = deque([Tick(0)])
        self._unsettled = 0  # the first tick that is not settled

    def __repr__(self) -> str:
        return f"<Crossings open={len(self.open)} ticks={len(self._ticks)}>"

    @property
    def size(self) -> int:
        """Bytes of the log, about."""
        return sum(tick.size for tick in self._ticks)

    @property
    def now(self) -> Tick:
        """The tick that everything goes into."""
        return self._ticks[-1]

    def turn(self) -> int:
        """Begin a new tick; the number of the one before it."""
        last = self.now.number
        self._ticks.append(Tick(last + 1))
        return last

    def settled(self, number: int) -> None:
        """What was sent before the end of this tick is acknowledged."""
        self._unsettled = number + 1
        needed = min([crossing.since for crossing in self.open.values()], default=self._unsettled)
        while self._ticks[0].number < needed:
            self._ticks.popleft()

    def begin(self, number: int, db: int, keys: Iterable[bytes], page: int) -> Crossing:
        """Open a crossing: its keys are read from now on."""
        crossing = self.open[number] = Crossing(number, db, frozenset(keys), page, self._unsettled)
        return crossing

    def end(self, number: int) -> tuple[Crossing, set[bytes]]:
        """Close a crossing, all of whose writes are acknowledged; which of its keys are to be copied again."""
        crossing = self.open.pop(number)
        touched = self._marked(crossing)
        for tick in self._ticks:
            if tick.number >= crossing.since:
                touched |= tick.touches(crossing.db, crossing.keys)
        return crossing, touched

    def _marked(self, crossing: Crossing) -> set[bytes]:
        dirty, db, keys = self._dirty, crossing.db, crossing.keys
        if len(dirty) < len(keys):
            return {key for where, key in dirty.places() if where == db and key in keys}
        return {key for key in keys if (db, key) in dirty}
