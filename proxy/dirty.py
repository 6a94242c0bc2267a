"""Which keys must be state-copied to the mirror side, and how far each copy is.

Owns one small state machine per (db, key). Knows neither connections nor clocks: the caller sends the reads and the
copies and reports what became of them. The theory:

* A state copy is a read in the lane, so it shows the key at one known point of the order; whatever damaged the
  mirror's copy *before* that point is cured by it. Damage that comes later needs another read.
* `READING`: the read is in the lane. Damage found by a lane reply or a mirror reply meanwhile lies before the read's
  own reply, so it is covered. Damage by a command on *another* connection has no place in that order: read again.
* `QUEUED`: the copy stands at position `seq` of the mirror queue. A bad reply of an effect before `seq` is covered.
* A key leaves only when the mirror acknowledged a copy that covers everything known (invariant 4).

A key may be *held* while a pinned connection has a write to it in flight: it is not read before the reply is in
(invariant 5). "Lag" marks (a script ran, the backfill found the key) are the same machine, but not counted as dirt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice

Place = tuple[int, bytes]  # (db, key)

MARK_BYTES = 270  # of a marked key in memory, besides its name (measured; the name itself takes a tenth more)


class Step(Enum):
    """How far the copy of one key is."""

    __hash__ = object.__hash__  # Enum's own is made in Python

    WAITING = "waiting"  # must be read; in `_ready` unless held or backing off
    READING = "reading"  # the read is in the lane
    QUEUED = "queued"  # the copy is in the mirror queue


class Event(Enum):
    """What can happen to a marked key."""

    __hash__ = object.__hash__

    DAMAGED = "damaged"  # something not covered by the copy under way
    READ_SENT = "read sent"
    COPY_QUEUED = "copy queued"
    SETTLED = "settled"
    FAILED = "failed"


TRANSITIONS: dict[Step, dict[Event, Step]] = {
    Step.WAITING: {Event.READ_SENT: Step.READING, Event.DAMAGED: Step.WAITING},
    Step.READING: {Event.COPY_QUEUED: Step.QUEUED, Event.FAILED: Step.WAITING, Event.DAMAGED: Step.READING},
    Step.QUEUED: {Event.SETTLED: Step.WAITING, Event.FAILED: Step.WAITING, Event.DAMAGED: Step.QUEUED},
}
"""Where each event leads. SETTLED leads to WAITING only for a key that was damaged meanwhile; else it is dropped."""


class Mark:
    """One key that must be copied."""

    __slots__ = ("again", "due", "failures", "held", "lag", "listed", "merely", "reason", "seq", "serial", "step")

    def __init__(self, reason: str, *, lag: bool) -> None:
        self.reason = reason
        self.lag = lag
        self.step = Step.WAITING
        self.again = False  # damaged behind the copy that is under way
        self.merely = ""  # that is lag, for this reason
        self.held = 0  # writes in flight on pinned connections
        self.seq = 0  # where the queued copy stands in the mirror queue
        self.serial = 0  # of the last read: the reply of an older one says nothing
        self.listed = False  # in `_ready`
        self.failures = 0  # copies that failed in a row
        self.due = 0.0  # when the next try may be made, in the caller's clock

    def __repr__(self) -> str:
        return f"<Mark {self.step.value} {self.reason!r} again={self.again} held={self.held}>"

    def advance(self, event: Event) -> None:
        """Take one step; KeyError means that the caller broke the protocol."""
        self.step = TRANSITIONS[self.step][event]


class DirtyKeys:
    """Every key whose mirror copy is not known to be equal, with its place in the repair."""

    def __init__(self) -> None:
        self._marks: dict[Place, Mark] = {}
        self._ready: deque[Place] = deque()
        self._retry: dict[Place, None] = {}
        self._lag = 0
        self._serials = 0
        self._bytes = 0
        self.under_way = 0  # keys READING or QUEUED
        self.cleaned: list[Place] | None = None  # gets every key that becomes clean, if anybody wants them

    def __repr__(self) -> str:
        return f"<DirtyKeys dirty={self.dirty} lag={self._lag} ready={len(self._ready)} under_way={self.under_way}>"

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, place: Place) -> bool:
        return place in self._marks

    @property
    def dirty(self) -> int:
        """Keys that may differ because something went wrong (without mere lag)."""
        return len(self._marks) - self._lag

    @property
    def bytes(self) -> int:
        """What all marks take in memory, about."""
        return self._bytes

    @property
    def waiting(self) -> int:
        """Keys whose read could be sent now."""
        return len(self._ready)

    def places(self) -> Iterator[Place]:
        """Every marked key."""
        return iter(self._marks)

    def reasons(self, limit: int = 10) -> dict[str, int]:
        """The most frequent reasons, with their number of keys (looks at 1,000 keys at most)."""
        counts: dict[str, int] = {}
        for mark, _ in zip(self._marks.values(), range(1000), strict=False):
            counts[mark.reason] = counts.get(mark.reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1])[:limit])

    def reason(self, place: Place) -> str:
        """Why the key is marked; nothing, if it is not any more."""
        mark = self._marks.get(place)
        return "" if mark is None else mark.reason

    def failing(self, limit: int = 10) -> Iterator[tuple[Place, Mark]]:
        """Keys whose last copy failed."""
        failing = ((place, self._marks[place]) for place in list(self._retry) if place in self._marks)
        yield from islice(((place, mark) for place, mark in failing if mark.failures), limit)

    # -- damage --------------------------------------------------------------------------------------------------

    def mark(self, place: Place, reason: str, *, lag: bool = False, seq: int | None = None) -> None:
        """The mirror's copy of `place` may be wrong because of something known in lane order.

        `seq` is the mirror queue position of the effect that went wrong; None when the effect was never queued
        (a lane reply just arrived), which any read still under way covers but no copy already queued.
        """
        mark = self._marks.get(place)
        if mark is None:
            self._add(place, Mark(reason, lag=lag))
        else:
            self._worsen(mark, reason, lag)
            if mark.step is Step.QUEUED and (seq is None or seq > mark.seq):
                self._uncovered(mark, reason, lag)

    def mark_unordered(self, place: Place, reason: str, *, lag: bool = False) -> None:
        """Something without a place in the lane's order (another connection's command, a scan): whatever is under way
        may not cover it."""
        mark = self._marks.get(place)
        if mark is None:
            self._add(place, Mark(reason, lag=lag))
        else:
            self._worsen(mark, reason, lag)
            if mark.step is not Step.WAITING:
                self._uncovered(mark, reason, lag)

    def want(self, place: Place, reason: str) -> None:
        """A copy of the key is wanted: any whose acknowledgement is still to come."""
        if place not in self._marks:
            self._add(place, Mark(reason, lag=True))

    def hold(self, place: Place, reason: str) -> None:
        """A write to the key is in flight on a pinned connection: dirty, but not to be read yet."""
        mark = self._marks.get(place)
        if mark is None:
            mark = self._marks[place] = Mark(reason, lag=False)
            self._bytes += MARK_BYTES + len(place[1])
        else:
            self._worsen(mark, reason, False)
            if mark.step is not Step.WAITING:
                self._uncovered(mark, reason, False)
        mark.held += 1

    def release(self, place: Place) -> None:
        """The reply of a held write is in."""
        mark = self._marks.get(place)
        if mark is None or not mark.held:  # forgotten or relabelled meanwhile
            self.mark_unordered(place, "written on a connection of its own")
            return
        mark.held -= 1
        if mark.step is Step.WAITING and place not in self._retry:
            self._list(place, mark)
        elif mark.step is not Step.WAITING:
            self._uncovered(mark, "written on a connection of its own", False)

    def _add(self, place: Place, mark: Mark) -> None:
        self._marks[place] = mark
        self._bytes += MARK_BYTES + len(place[1])
        self._lag += mark.lag
        self._list(place, mark)

    def _list(self, place: Place, mark: Mark) -> None:
        """The key may be read, unless it is held."""
        if not mark.held and not mark.listed:
            mark.listed = True
            self._ready.append(place)

    @staticmethod
    def _uncovered(mark: Mark, reason: str, lag: bool) -> None:
        """Damaged behind the copy that is under way."""
        mark.merely = (mark.merely or reason) if lag and (mark.merely or not mark.again) else ""
        mark.again = True

    def _covered(self, mark: Mark) -> None:
        """A copy was complete: the key is as bad as what has damaged it since."""
        if mark.merely and not mark.held and not mark.lag:
            mark.lag, mark.reason = True, mark.merely
            self._lag += 1

    def _worsen(self, mark: Mark, reason: str, lag: bool) -> None:
        if mark.lag and not lag:
            mark.lag = False
            mark.reason = reason
            self._lag -= 1

    # -- repair --------------------------------------------------------------------------------------------------

    def take(self) -> tuple[Place, int] | None:
        """The next key to read, now READING, and the serial of this read; None when there is none."""
        while self._ready:
            place = self._ready.popleft()
            mark = self._marks.get(place)
            if mark is None:
                continue
            mark.listed = False
            if mark.step is not Step.WAITING or mark.held:
                continue
            mark.advance(Event.READ_SENT)
            mark.again, mark.merely = False, ""
            self._serials += 1
            mark.serial = self._serials
            self.under_way += 1
            return place, mark.serial
        return None

    def reading(self, place: Place, serial: int) -> bool:
        """Whether the key still waits for this read (it may have been forgotten or relabelled meanwhile)."""
        mark = self._marks.get(place)
        return mark is not None and mark.step is Step.READING and mark.serial == serial

    def is_queued(self, place: Place, seq: int) -> bool:
        """Whether the key still waits for the copy at `seq`."""
        mark = self._marks.get(place)
        return mark is not None and mark.step is Step.QUEUED and mark.seq == seq

    def queued(self, place: Place, seq: int) -> None:
        """The copy of a READING key was appended to the mirror queue at position `seq`."""
        mark = self._marks[place]
        mark.advance(Event.COPY_QUEUED)
        mark.seq = seq

    def queued_together(self, places: Iterable[Place], seq: int) -> None:
        """The same for several keys, at one position."""
        for place in places:
            self.queued(place, seq)

    def settled_together(self, places: Iterable[Place], seq: int) -> list[Place]:
        """The mirror acknowledged their copies at `seq`: those that still waited for them, clean or not."""
        waited = [place for place in places if self.is_queued(place, seq)]
        for place in waited:
            self.settled(place, seq)
        return waited

    def settled(self, place: Place, seq: int) -> bool:
        """The mirror acknowledged the copy at `seq`; True when the key is clean now."""
        if not self.is_queued(place, seq):
            return False
        mark = self._marks[place]
        self.under_way -= 1
        if mark.again or mark.held:
            mark.advance(Event.SETTLED)
            mark.failures = 0
            self._covered(mark)
            self._list(place, mark)
            return False
        del self._marks[place]
        self._bytes -= MARK_BYTES + len(place[1])
        self._lag -= mark.lag
        if self.cleaned is not None:
            self.cleaned.append(place)
        return True

    def damaged(self, place: Place) -> bool:
        """Whether the copy under way does not cover everything that is known."""
        mark = self._marks.get(place)
        return mark is not None and (mark.again or mark.held > 0)

    def failed(self, place: Place, reason: str, *, due: float | None = None) -> None:
        """The read or the copy failed. It is tried again at once, or from `due` on (the caller's clock) by `retry`."""
        mark = self._marks.get(place)
        if mark is None or mark.step is Step.WAITING:
            return
        mark.advance(Event.FAILED)
        self.under_way -= 1
        mark.failures += 1
        if due is None:
            self._list(place, mark)
        else:
            self._worsen(mark, reason, False)
            mark.reason, mark.due = reason, due
            self._retry[place] = None

    def rest(self, place: Place, *, due: float) -> None:
        """The copy of a QUEUED key is complete, and was damaged meanwhile, by what is no failure: read it again, but
        not before `due`."""
        mark = self._marks[place]
        mark.advance(Event.SETTLED)
        self.under_way -= 1
        mark.failures = 0
        self._covered(mark)
        mark.due = due
        self._retry[place] = None

    def failures(self, place: Place) -> int:
        """How many tries in a row have failed."""
        mark = self._marks.get(place)
        return 0 if mark is None else mark.failures

    def retry(self, now: float) -> int:
        """Let the keys that are due have another try; how many there are."""
        due = [place for place in self._retry if place not in self._marks or self._marks[place].due <= now]
        for place in due:
            del self._retry[place]
            mark = self._marks.get(place)
            if mark is not None and mark.step is Step.WAITING:
                self._list(place, mark)
        return len(due)

    def queued_places(self) -> list[Place]:
        """Keys whose copy is in the mirror queue, in its order."""
        queued = [(mark.seq, place) for place, mark in self._marks.items() if mark.step is Step.QUEUED]
        return [place for _, place in sorted(queued)]

    def again_all(self, places: Iterable[Place]) -> None:
        """The link on which these keys' reads or copies were under way is gone."""
        for place in places:
            self.failed(place, "connection lost")

    # -- whole dbs -----------------------------------------------------------------------------------------------

    def relabel(self, a: int, b: int) -> None:
        """SWAPDB a b at this point of the order: what was dirty in one db is dirty in the other.

        The old name stays dirty as well: what other connections did between the swap and its reply was done to the
        db that has the name now. Keys under way are read again: their read may stand on either side of the swap.
        """
        swap = {a: b, b: a}
        for (db, key), mark in list(self._marks.items()):
            if db in swap:
                self.mark_unordered((db, key), mark.reason, lag=mark.lag)
                self.mark_unordered((swap[db], key), mark.reason, lag=mark.lag)

    def drop_db(self, db: int) -> None:
        """There is no such db: nothing in it can differ."""
        for place in [place for place in self._marks if place[0] == db]:
            mark = self._marks.pop(place)
            self._bytes -= MARK_BYTES + len(place[1])
            self._lag -= mark.lag
            self.under_way -= mark.step is not Step.WAITING

    def forget(self) -> None:
        """Drop everything: a full backfill will copy every key anyway."""
        self._marks.clear()
        self._ready.clear()
        self._retry.clear()
        self._lag = 0
        self._bytes = 0
        self.under_way = 0


class Unkept(DirtyKeys):
    """No mirror side has to be equal any more: no key is ever marked."""

    def mark(self, place: Place, reason: str, *, lag: bool = False, seq: int | None = None) -> None: ...

    def mark_unordered(self, place: Place, reason: str, *, lag: bool = False) -> None: ...

    def want(self, place: Place, reason: str) -> None: ...

    def hold(self, place: Place, reason: str) -> None: ...

    def release(self, place: Place) -> None: ...
