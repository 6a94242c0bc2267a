"""What a live copy knows of changes: which keys are to be copied again, and whether both sides are equal by now.

Owns the dirty set and the claim of convergence. A change makes its key dirty; dirty keys are formed into groups of the
copier, after the change, which is all that order needs (see `copier`). Where a feed does not name the db, the key is
copied in every db that has keys on either side; where it is not, its copy is a DEL of what should not be there.

What no feed tells (measured on Redis 6.2 to 8.2 and Valkey 8.1 and 9.1) is looked for: what consumer groups do to a
stream and XSETID, by polling every stream's groups; SWAPDB (and with notifications FLUSHALL, FLUSHDB), by the
counters of INFO commandstats; libraries, by FUNCTION DUMP.

Memory: MAX_DIRTY keys. Beyond, all are forgotten and the source is scanned again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import hiredis
import trio

from .. import streams
from .copier import Copier
from .feed import Feed
from .pipe import Pipe
from .selection import Selection
from .sides import keyspace
from .tally import Place, Tally
from .walking import copy_functions

MAX_DIRTY = 200_000
MAX_DIRTY_BYTES = 24 * 1024 * 1024
DIRTY_BYTES = 150  # of each, beside its name
MAX_STREAMS = 50_000  # polled; beyond, no convergence is claimed
CHECKS_SHARE = 10  # a look whether all is equal is followed by ten times as long without one
COALESCE_S = 0.05  # a key that changes all the time is copied that often
PORTION = 1000  # dirty keys formed into groups at once
COUNTERS_S = 1.0
STREAMS_S = 2.0  # and never more than a tenth of the time
RETRY_S = 5.0  # failed keys are tried again
GROUP_COMMANDS = (b"cmdstat_xgroup", b"cmdstat_xsetid")  # what they do may be undone without a trace
WHOLE_DB = (b"cmdstat_swapdb", b"cmdstat_flushdb", b"cmdstat_flushall")
ALL_PENDING = b"1000000000"

Dirty = tuple[int | None, bytes]


@dataclass(slots=True)
class Known:
    """What outlives a lost connection."""

    digests: dict[Place, int | None] = field(default_factory=dict)  # of what the groups of each stream looked like
    too_many_streams: bool = False
    library: bytes | None = None
    rescans: int = 0
    changes: int = 0  # seen


class Following:
    """The changes since the feed is on."""

    def __init__(
        self, source: Pipe, target: Pipe, copier: Copier, tally: Tally, selection: Selection, known: Known
    ) -> None:
        self.rescan = True  # the source is to be scanned (again)
        self.extras = True  # the target is to be looked through for keys that the source does not have
        self.converged = False
        self.why = "the source has not been scanned yet"
        self._source, self._target = source, target
        self._copier, self._tally, self._selection, self._known = copier, tally, selection, known
        self._dirty: dict[Dirty, float] = {}  # -> since when
        self._dirty_bytes = 0
        self._forming = 0  # dirty keys taken, not yet the copier's
        self._wake = trio.Event()
        self._dbs: set[int] = set()
        self._counters: tuple[int, ...] | None = None
        self._counters_told = True
        self._feed: Feed | None = None
        self._poll_due = 0.0
        self._polling = trio.Lock()
        self._copied: tuple[set[Place], set[Place]] = set(), set()  # streams, since the last poll and before it
        self._group_calls = -1, -1  # when the last poll began, and the one before it
        self._check_due = 0.0
        self._retry_due = 0.0
        self._to_retry: set[Place] = set()
        self._retried: set[Place] = set()  # tried again, RETRY_S after another try
        copier.on_stream = self._found_stream

    def __repr__(self) -> str:
        return f"<Following dirty={len(self._dirty)} converged={self.converged} {self.why}>"

    @property
    def dirty(self) -> int:
        """Keys changed and not yet given to the copier."""
        return len(self._dirty) + self._forming

    @property
    def lag_ms(self) -> int:
        """For how long the oldest dirty key has been waiting."""
        since = next(iter(self._dirty.values()), None)
        return 0 if since is None else round((trio.current_time() - since) * 1000)

    # -- what the feed tells ---------------------------------------------------------------------------------------

    def changed(self, db: int | None, key: bytes) -> None:
        """Somebody changed a key."""
        if (db is not None and not self._selection.has_db(db)) or not self._selection.admits(key):
            return
        self._known.changes += 1
        self._unsettle("keys have just changed")
        place = db, key
        if place in self._dirty:
            return
        self._dirty[place] = trio.current_time()
        self._dirty_bytes += len(key) + DIRTY_BYTES
        if len(self._dirty) > MAX_DIRTY or self._dirty_bytes > MAX_DIRTY_BYTES:
            self._dirty.clear()
            self._dirty_bytes = 0
            self._scan_again(f"more than {MAX_DIRTY:,} keys waited to be copied again")
        self._wake.set()

    def flushed(self) -> None:
        """A db was flushed; which one is not told. What is written behind that is told by itself."""
        self._unsettle("a db was flushed")
        self.extras = True

    def _unsettle(self, why: str) -> None:
        self.converged, self.why = False, why

    def _scan_again(self, why: str) -> None:
        self._unsettle(f"{why}: the source is scanned again")
        self._tally.note(f"{why}: the source was scanned again")
        self._known.rescans += 1
        self.rescan = self.extras = True

    def _found_stream(self, place: Place) -> None:
        self._copied[0].add(place)
        digests = self._known.digests
        if place not in digests:
            if len(digests) >= MAX_STREAMS:
                self._known.too_many_streams = True
            else:
                digests[place] = None  # unknown: copied again once it is known

    # -- copying what changed --------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """Give dirty keys to the copier, until cancelled. Errors: ConnectionLost, ServerRefuses."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(COALESCE_S)
            while self._dirty:
                portion = list(self._dirty)[:PORTION] if len(self._dirty) > PORTION else list(self._dirty)
                for place in portion:
                    del self._dirty[place]
                    self._dirty_bytes -= len(place[1]) + DIRTY_BYTES
                self._forming = len(portion)
                await self._form(portion)
                self._forming = 0

    async def _form(self, portion: list[Dirty]) -> None:
        dbs = await self.used_dbs()
        for db in dbs:
            keys = [key for where, key in portion if where is None or where == db]
            if keys:
                await self._copier.look_and_add(db, keys)

    async def used_dbs(self) -> list[int]:
        """Every db that has, or had, keys on either side. Asked after a change, it has the db of the change."""
        for db in await keyspace(self._source):
            await self._use(db)
        return sorted(self._dbs)

    async def _use(self, db: int) -> None:
        if db not in self._dbs and self._selection.has_db(db):
            await self._target.enter(db)
            self._dbs.add(db)

    async def begin(self, feed: Feed) -> None:
        """The feed is on: learn what it does not tell."""
        self._feed = feed
        for db in await keyspace(self._target):
            await self._use(db)
        await self.used_dbs()
        await self._look_at_counters()

    # -- what the feed does not tell -------------------------------------------------------------------------------

    async def look(self) -> None:
        """Look for what no feed tells, until cancelled. Errors: ConnectionLost, ServerRefuses."""
        while True:
            await trio.sleep(COUNTERS_S)
            await self._look_at_counters()
            if trio.current_time() >= self._poll_due:
                await self._poll_streams()
            if trio.current_time() >= self._retry_due:
                self._retry_due = trio.current_time() + RETRY_S
                failed = self._some_failed()
                self._retried, self._to_retry = failed & self._to_retry, failed
                for place in failed:
                    self._make_dirty(place)

    def _some_failed(self) -> set[Place]:
        """Keys that could not be copied, as many as are tried again at once."""
        return {place for place in list(self._tally.failed)[:PORTION] if place[0] >= 0}

    def _make_dirty(self, place: Dirty) -> None:
        self._dirty.setdefault(place, trio.current_time())
        self._wake.set()

    async def _look_at_counters(self) -> None:
        reply = await self._source.call(b"INFO", b"commandstats")
        if isinstance(reply, hiredis.ReplyError) or b"cmdstat_" not in reply:
            self._counters_told = False
            return
        counters = _calls(reply)
        before, self._counters = self._counters, counters
        if before is None or before == counters:
            return
        if before[0] != counters[0]:
            self._scan_again("SWAPDB was called")
        elif self._feed is not None and not self._feed.flushes:
            self.flushed()

    async def _poll_streams(self) -> bool:
        """Copy again every stream whose groups have changed; whether there was any."""
        async with self._polling:
            await self._doubt_copies()
            return await self._poll_all()

    async def _doubt_copies(self) -> None:
        """A stream that was copied behind its digest may have been copied with a group that was made after that, and is
        gone again by now: while such commands are called, what was copied meanwhile is copied once more. (XCLAIM JUSTID
        there and back again in such a moment is not seen; it is called too often to doubt everything because of it.)"""
        reply = await self._source.call(b"INFO", b"commandstats")
        calls = _group_calls(reply) if isinstance(reply, bytes) else -1
        before = self._group_calls[1] if self._group_calls[1] >= 0 else self._group_calls[0]
        if before not in (-1, calls):
            for place in self._copied[0] | self._copied[1]:
                if place in self._known.digests:
                    self._known.digests[place] = None
        self._group_calls = calls, self._group_calls[0]
        self._copied = set(), self._copied[0]  # one more time: that a copy was read is known a moment later

    async def _poll_all(self) -> bool:
        began = trio.current_time()
        places = sorted(self._known.digests)
        changed = 0
        for start in range(0, len(places), PORTION):
            changed += await self._poll_some(places[start : start + PORTION])
        now = trio.current_time()
        self._poll_due = now + max(STREAMS_S, 10 * (now - began))
        return changed > 0

    async def _poll_some(self, places: list[Place]) -> int:
        changed = 0
        for db in {db for db, _ in places}:
            keys = [key for where, key in places if where == db]
            for key, digest in zip(keys, await self._digests(db, keys), strict=True):
                if digest is None:  # it is no stream any more
                    del self._known.digests[db, key]
                elif digest != self._known.digests[db, key]:
                    self._known.digests[db, key] = digest
                    self._make_dirty((db, key))
                    changed += 1
        return changed

    async def _digests(self, db: int, keys: list[bytes]) -> list[int | None]:
        """What the groups of these streams look like, but for the passing of time. Copied after it was read, a stream
        is as its digest says, or newer."""
        heads = await self._source.pipeline(
            [command for key in keys for command in ([b"XINFO", b"STREAM", key], [b"XINFO", b"GROUPS", key])], db
        )
        asked: list[list[bytes]] = []
        counts = []
        for key, rows in zip(keys, heads[1::2], strict=True):
            names = [] if isinstance(rows, hiredis.ReplyError) else [streams.pairs(row)[b"name"] for row in rows]
            counts.append(len(names) * 2)
            for name in names:
                asked += [[b"XPENDING", key, name, b"-", b"+", ALL_PENDING], [b"XINFO", b"CONSUMERS", key, name]]
        replies = await self._source.pipeline(asked, db) if asked else []
        digests: list[int | None] = []
        position = 0
        for info, rows, count in zip(heads[::2], heads[1::2], counts, strict=True):
            digests.append(_digest(info, rows, replies[position : position + count]))
            position += count
        return digests

    # -- the claim -------------------------------------------------------------------------------------------------

    async def check(self) -> bool:
        """Whether both sides are equal as of now, but for what changes meanwhile; `why` says why not.
        Errors: ConnectionLost, ServerRefuses."""
        if self.converged:
            return True
        began = trio.current_time()
        if self._busy() or began < self._check_due:
            return False
        try:
            return await self._check()
        finally:
            now = trio.current_time()
            self._check_due = now + CHECKS_SHARE * (now - began)

    async def _check(self) -> bool:
        assert self._feed is not None
        seen = self._known.changes
        await self._look_at_counters()
        if await self._poll_streams():
            return False
        await self._copy_functions()
        await self._feed.barrier()
        if self._busy() or seen != self._known.changes:
            return False
        self.why = self._doubts()
        self.converged = not self.why
        return self.converged

    def _busy(self) -> bool:
        return self.rescan or self.extras or self.dirty > 0 or not self._copier.idle

    @property
    def settled(self) -> bool:
        """Nothing is left to be done, although convergence may not be claimed. What failed was tried again: a big key
        that was changed under its pages wants a moment of rest, nothing else."""
        if self.converged:
            return True
        return (
            bool(self.why) and self.why == self._doubts() and not self._busy() and self._some_failed() <= self._retried
        )

    def _doubts(self) -> str:
        """Why equality cannot be claimed although nothing is left to be copied."""
        doubts = []
        if self._tally.failed:
            doubts.append(f"{len(self._tally.failed):,} keys cannot be copied")
        if self._tally.lossy:
            doubts.append(f"the target cannot hold all of {len(self._tally.lossy):,} keys")
        if self._feed is not None and self._feed.doubt:
            doubts.append(self._feed.doubt)
        if not self._counters_told:
            doubts.append("the source does not tell of SWAPDB (INFO commandstats)")
        if self._known.too_many_streams:
            doubts.append(f"there are more than {MAX_STREAMS:,} streams: changes to their groups are not seen")
        return "; ".join(doubts)

    async def _copy_functions(self) -> None:
        if not self._selection.everything:
            return
        payload = await self._source.call(b"FUNCTION", b"DUMP")
        if isinstance(payload, bytes) and payload != self._known.library:
            self._known.library = payload
            await copy_functions(self._source, self._target, self._tally)


def _calls(text: bytes) -> tuple[int, ...]:
    """How often each of WHOLE_DB was called."""
    found = dict.fromkeys(WHOLE_DB, 0)
    for line in text.splitlines():
        name, _, facts = line.partition(b":")
        if name in found and facts.startswith(b"calls="):
            found[name] = int(facts[6:].partition(b",")[0])
    return tuple(found.values())


def _group_calls(text: bytes) -> int:
    """How often any of GROUP_COMMANDS was called, whatever its subcommand."""
    found = [facts for line in text.splitlines() for name, _, facts in [line.partition(b":")] if _is_about_groups(name)]
    return sum(int(facts[6:].partition(b",")[0]) for facts in found if facts.startswith(b"calls="))


def _is_about_groups(name: bytes) -> bool:
    return name.partition(b"|")[0] in GROUP_COMMANDS


def _digest(info: Any, rows: Any, replies: Iterable[Any]) -> int | None:
    if isinstance(info, hiredis.ReplyError) or isinstance(rows, hiredis.ReplyError):
        return None
    head = streams.pairs(info)
    groups = [
        (group[b"name"], group[b"last-delivered-id"], group.get(b"entries-read")) for group in map(streams.pairs, rows)
    ]
    details: list[object] = []
    for index, reply in enumerate(replies):
        if isinstance(reply, hiredis.ReplyError):  # the group went away in between
            details.append(str(reply))
        elif index % 2:
            details.append(tuple(streams.pairs(consumer)[b"name"] for consumer in reply))
        else:
            details.append(tuple((identity, consumer, count) for identity, consumer, _, count in reply))
    return hash((head[b"last-generated-id"], head.get(b"entries-added"), tuple(groups), tuple(details)))
