"""The fast floor's centre: who is connected, what is sent when, and whether commands are taken at all.

Owns the sessions and the order of one flush: reads for dirty keys, then the lane, then the mirror queue, then every
client that has something to get, each with one send. Decides nothing about commands. Everything here runs in one trio
task at a time and never blocks; the slow floor calls in and flushes when it is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from proxy.crowd import part_of_each, settle, shed
from proxy.express import Express
from proxy.lane import Lane, LaneLoss
from proxy.mirror import Mirror
from proxy.pausing import Pausing
from proxy.recorder import Recorder, other_db
from proxy.repair import Repair
from proxy.roles import Roles
from proxy.suspects import Suspects
from proxy.watch import State, Watch

if TYPE_CHECKING:
    from proxy.dirty import Place
    from proxy.floor import Floor
    from proxy.front.guests import Guest
    from proxy.journal import Journal
    from proxy.pins import Pins
    from proxy.router import Router
    from proxy.session import Session
    from proxy.waiters import Waiters
    from resp.catalog import Spec

    Client = Session | Guest

log = logging.getLogger("crossfade")

FULL = "the serving side does not take what it is sent"
DOWN = "the serving side is not connected"
FLIP = "a flip is under way"


class Hub:
    """Sessions, lane, mirror queue and repair of one running proxy."""

    floor: Floor
    router: Router
    waiters: Waiters
    pins: Pins

    def __init__(self, roles: Roles, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.roles = roles
        self.clock = clock
        self.sessions: dict[int, Session] = {}
        self.guests: dict[int, Guest] = {}  # clients of the front processes, by number
        self.touched: list[Session] = []  # with output or a change of mode to be looked at in the next flush
        self._pauses: set[str] = {DOWN}  # why no command is taken; nobody serves yet
        self.paused = True
        self.refusal = ""  # why commands are answered with an error instead of waiting
        self.on_filling: Callable[[str], None] = lambda reason: None
        self.on_screening: Callable[[], None] = lambda: None
        self.on_lane_lost: Callable[[LaneLoss], None] = lambda loss: None
        self.on_mirror_lost: Callable[[str], None] = lambda reason: None
        self.mirror = Mirror(roles, clock)
        self.mirror.mark = self._mark
        self.mirror.whole_db = self.fall_back
        self.lane = Lane(self._lane_lost, self.lane_full)
        self.repair = Repair(roles, self.lane, self.mirror, self.fall_back, clock)
        self.lane.copies, self.lane.paged = self.repair.copies_in_pages, self.repair.copies_in_pages.paged
        self.mirror.copied, self.mirror.copied_together = self.repair.on_copied, self.repair.on_copied_together
        self.mirror.lost = self._mirror_lost
        self.recorder = Recorder(roles, self.mirror, self.repair, clock, time.time)
        self.lane.recorder = self.recorder
        self.express = Express(self)
        self.watch = Watch(self, enabled=False)
        self.suspects = Suspects(self)
        self.repair.paging = self._paging
        self.recorder.script_done = lambda: self.watch.scripts_done(1)
        self.recorder.scripts_done = lambda count: self.watch.scripts_done(count, alone=False)
        self.pausing = Pausing(self)
        self.screens_writes = False  # plain writes go the slow way, as they may be refused, or have to wait
        self._read_only = ""
        self.journal: Journal | None = None
        self.commands = 0  # taken from clients
        self.beside = 0  # crossings of a ferry under way: keys that it writes on the mirror side
        self.held_bytes = part_of_each(0)  # of commands of one client that may wait
        self.moved = 0  # bytes that may weigh, since the clients were last weighed
        self._conditions: list[tuple[Callable[[], bool], trio.Event]] = []

    def __repr__(self) -> str:
        return f"<Hub sessions={len(self.sessions)} paused={self.paused} {self.lane!r} {self.mirror!r} {self.repair!r}>"

    def _mark(self, db: int, key: bytes, reason: str, seq: int | None) -> None:
        self.repair.mark((db, key), reason, seq=seq)

    def _paging(self, place: Place) -> None:
        """A big key is about to be copied in pages."""
        if self.watch.is_written(place[1]):
            self.suspects.add(place)

    def fall_back(self, reason: str) -> None:
        """What is equal is no longer known by key: a backfill is due."""
        self.on_filling(reason)

    # -- sessions ------------------------------------------------------------------------------------------------

    def joined(self, session: Session) -> None:
        """A client connected."""
        self.sessions[session.id] = session
        self._share()
        self.floor.add(session)

    def left(self, session: Session) -> None:
        """A client is gone; what it has in flight is seen through to its end."""
        self.sessions.pop(session.id, None)
        self._share()
        self.waiters.forget(session)
        self.pausing.left(session)
        if session.pin is not None:
            session.pin.orphan()

    def _share(self) -> None:
        self.held_bytes = part_of_each(len(self.sessions))

    def weigh(self) -> None:
        """Disconnect the heaviest if all clients are too heavy. Called every second, and when much has moved."""
        self.moved = 0
        shed(self.sessions.values())

    @property
    def read_only(self) -> str:
        """Why writes are refused."""
        return self._read_only

    @read_only.setter
    def read_only(self, why: str) -> None:
        self._read_only = why
        self.screen_writes()

    def screen_writes(self) -> None:
        """Whether writes are taken as they come may have changed."""
        before, self.screens_writes = self.screens_writes, bool(self._read_only or self.pausing.kind)
        if self.screens_writes != before:
            self.on_screening()

    def clients(self) -> list[Client]:
        """Everybody who is connected, wherever that is served."""
        return [*(session for session in self.sessions.values() if session.is_client), *self.guests.values()]

    @property
    def client_count(self) -> int:
        """How many there are."""
        return sum(session.is_client for session in self.sessions.values()) + len(self.guests)

    def dbs(self) -> set[int]:
        """The dbs that clients are in."""
        return {client.db for client in self.clients()}

    def pause(self, why: str) -> None:
        """Take no command from now on; clients wait."""
        self._pauses.add(why)
        self.paused = True

    def resume(self, why: str, first: Iterable[Session] = ()) -> None:
        """This reason to wait is gone. With the last one, commands are taken again, those that have waited at once."""
        self._pauses.discard(why)
        if self._pauses:
            return
        self.paused = False
        for session in [*first, *self.sessions.values()]:
            session.resume_or_break()
        self.waiters.poll()
        self.flush()

    def note(self, spec: Spec, args: list[bytes], db: int) -> None:
        """A write is about to be sent: its keys go into the journal before it does, and the watch expects them."""
        if not spec.writes:
            return
        journal, watch = self.journal, self.watch
        keys = spec.keys(args)
        watch.written.update(keys)
        if journal is not None:
            journal.note(db, keys)
            other = other_db(spec.name, args)
            if other is not None:
                journal.note(other, keys)
        if not keys and self.recorder.reaches_unknown_keys(spec):
            watch.flushed()
            if journal is not None:
                journal.note_barrier(spec.name)

    def note_keys(self, keys: Sequence[bytes], db: int) -> None:
        """The same for writes that have just these keys."""
        self.watch.written.update(keys)
        if self.journal is not None:
            self.journal.note_many(db, keys)

    @property
    def noting(self) -> bool:
        """Whether anybody wants to know of writes before they are sent."""
        return self.journal is not None or self.watch.state is not State.DISABLED

    @property
    def flipping(self) -> bool:
        """Jobs send nothing now."""
        return FLIP in self._pauses

    def facts(self) -> dict[str, object]:
        """What INFO says of the proxy."""
        return {
            "serving": self.roles.serving.value,
            "epoch": self.roles.epoch,
            "clients": self.client_count,
            "dirty_keys": self.repair.keys.dirty,
            "unmirrored": sum(self.recorder.unmirrored.values()),
            "mirroring": int(not self.mirror.retired),
            "mirror_connected": int(self.mirror.link is not None),
            "mirror_lag_ms": round(self.mirror.lag() * 1000, 1),
            "mirror_queued_bytes": self.mirror.queued_bytes,
            "commands": self.commands,
            "paused": self.pausing.kind.name.lower(),
        }

    # -- flush ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send everything that has gathered since the last flush."""
        self.serve()
        self.mirror.flush()

    def serve(self) -> None:
        """As `flush`, but what the mirror side gets may wait until the floor has nothing to serve, or gives way to
        others (which is soon): then it gets more at once, and clients their answers sooner. The journal comes first
        (invariant 3)."""
        journal = self.journal
        while True:
            self.repair.pump()
            for db, keys in self.lane.unnoted():
                self.note_keys(keys, db)
            if journal is not None:
                journal.commit()
            self.lane.flush()
            self.pins.flush()
            touched = self.touched
            if not touched:
                break
            self.touched = []
            settle(touched)
        if self.mirror.pressing or self._conditions:
            self.mirror.flush()
        elif self.mirror.gathered:
            self.floor.later()
        if self._conditions:
            self._check()

    def rest(self) -> None:
        """Do what was put off."""
        self.mirror.flush()
        if self.watch.read_late():
            self.serve()

    def _check(self) -> None:
        waiting = []
        for condition, event in self._conditions:
            if condition():
                event.set()
            else:
                waiting.append((condition, event))
        self._conditions = waiting

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds, looked at after every flush."""
        if condition():
            return
        event = trio.Event()
        entry = (condition, event)
        self._conditions.append(entry)
        try:
            await event.wait()
        finally:
            if entry in self._conditions:
                self._conditions.remove(entry)

    @property
    def drained(self) -> bool:
        """Everything that was sent to the serving side has been answered."""
        return self.lane.idle and self.pins.idle

    @property
    def settled(self) -> bool:
        """Nothing is dirty, the mirror side has acknowledged everything, and nobody else is writing there."""
        return self.repair.settled and self.mirror.idle and not self.beside

    def lane_full(self, full: bool) -> None:
        """The serving side reads too slowly: clients wait until it has taken what it was sent (invariant 8)."""
        if full:
            self.pause(FULL)
        else:
            self.resume(FULL)

    # -- losses --------------------------------------------------------------------------------------------------

    def _lane_lost(self, loss: LaneLoss) -> None:
        """The serving side's connection broke: who has a write in flight is disconnected, as his server would."""
        self.pause(DOWN)
        self.resume(FULL)
        for item in loss.writes:
            self.recorder.lost_write(item, loss.reason)
        for callback in loss.callbacks:
            callback(None)
        for session in loss.doomed:
            session.close()
        self.on_lane_lost(loss)

    def _mirror_lost(self, reason: str) -> None:
        self.repair.mirror_lost()
        self.on_mirror_lost(reason)
