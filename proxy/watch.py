"""What changes on the serving side without a command that names it: undeclared keys of scripts, expiry, eviction,
writers that bypass the proxy.

Owns one connection with CLIENT TRACKING ON BCAST (6.0 and newer): the server tells every key that anybody changes,
after the change. A key that the proxy's own commands explain is ignored, except while a script runs or has just run:
which of the keys it wrote is known to nobody then. Everything else is copied. Scripts are not sent before the watch is
on. When it breaks, what was missed is unknown, and status says so, as it does where the server refuses it.

What it tells is read when the floor rests, a millisecond later and together, unless a barrier waits for it: otherwise
each single write had its client wait for that, too (three reads for a SET that comes alone, where two do).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

import hiredis
import trio

from backfill.errors import BackfillError
from proxy.link import Link
from proxy.session import Command, Mode, Session
from resp.encode import encode
from resp.errors import ProtocolError

if TYPE_CHECKING:
    from proxy.hub import Hub
    from proxy.side import Side

log = logging.getLogger("crossfade")

SCRIPT_WINDOW_SECONDS = 1.0  # after a script's reply, changed keys may still be its work
GENERATION_SECONDS = 5.0  # written keys are remembered for one to two generations; invalidations come much sooner
GENERATION_KEYS = 100_000  # a generation ends with so many, too; a key that is forgotten too soon is merely copied
AGAIN_SECONDS = 0.5
UNEXPLAINED = "changed without a command of ours (expired, evicted, or written by somebody else)"
_TRACK = encode([b"CLIENT", b"TRACKING", b"ON", b"BCAST"])
_PING = encode([b"PING"])


class State(Enum):
    """Whether changes are seen."""

    OFF = "off"  # not yet, or not any more: being connected
    ON = "on"
    REFUSED = "refused"  # the server does not allow it
    DISABLED = "disabled"  # the operator does not want it


class Decoder:
    """Reads the connection's bytes: pushes for every write of everybody, so in C. Gives decoded frames."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()

    def feed(self, data: bytes) -> list[object]:
        """Every frame that is complete now. Errors: ProtocolError."""
        try:
            self._reader.feed(data)
            return list(iter(self._reader.gets, False))
        except hiredis.ProtocolError as error:
            raise ProtocolError(f"Protocol error: {error}") from error


class Running:
    """Scripts that run, or have just run."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._at = float("-inf")  # when the last was answered

    def __repr__(self) -> str:
        return f"<Running in_flight={self.in_flight}>"

    def done(self, count: int, now: float) -> None:
        """So many were answered, or lost."""
        if count:
            self.in_flight -= count
            self._at = now

    def may_have_written(self, now: float) -> bool:
        """Whether what changed was perhaps changed by one of them."""
        return self.in_flight > 0 or now - self._at < SCRIPT_WINDOW_SECONDS


class Watch:
    """Sees what changes on the serving side."""

    def __init__(self, hub: Hub, *, enabled: bool) -> None:
        self.state = State.OFF if enabled else State.DISABLED
        self.unexplained = 0  # keys changed without a command of ours
        self.during_scripts = 0  # keys changed while a script ran
        self.on_gap: Callable[[], None] = lambda: None  # told when changes may have been missed
        self._hub = hub
        self._link: Link | None = None
        self.written: set[bytes] = set()  # keys that commands of ours are about to write, or have just written
        self._written_before: set[bytes] = set()
        self._generation_began = 0.0
        self._flushed_at = float("-inf")
        self._scripts = Running()
        self._not_alone = Running()  # of those: scripts in a block, or on a connection of their own
        self._script_dbs: set[int] = set()
        self._waiting: list[tuple[Session, list[Command]]] = []
        self._barriers: list[Callable[[], None]] = []
        self._lost = trio.Event()

    def __repr__(self) -> str:
        return f"<Watch {self.state.value} unexplained={self.unexplained} scripts={self._scripts.in_flight}>"

    # -- what our own commands explain ----------------------------------------------------------------------------

    def age(self) -> None:
        """Forget what was written long ago. Called every second or so."""
        now = self._hub.clock()
        if now - self._generation_began > GENERATION_SECONDS or len(self.written) > GENERATION_KEYS:
            self._generation_began = now
            self._written_before, self.written = self.written, set()
            self._hub.suspects.keep(self.is_written)

    def is_written(self, key: bytes) -> bool:
        """By commands of ours, lately."""
        return key in self.written or key in self._written_before

    def flushed(self) -> None:
        """A command of ours that touches every key is about to be sent."""
        self._flushed_at = self._hub.clock()

    def script_sent(self, db: int, *, alone: bool = True) -> None:
        """A script is about to be sent; `alone`: on the lane, and not inside a block."""
        self._scripts.in_flight += 1
        self._not_alone.in_flight += not alone
        self._script_dbs.add(db)

    def scripts_done(self, count: int, *, alone: bool = True) -> None:
        """Scripts were answered, or lost."""
        now = self._hub.clock()
        self._scripts.done(count, now)
        if not alone:
            self._not_alone.done(count, now)

    # -- waiting for it -------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Scripts may be sent."""
        return self.state is not State.OFF

    def require(self, session: Session, commands: list[Command]) -> None:
        """Let the session send these commands again once changes are seen; until then it waits."""
        if self.ready:
            session.park(commands)
            self._hub.touched.append(session)
            return
        session.mode = Mode.OPENING
        self._waiting.append((session, commands))

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for session, commands in waiting:
            if session.open:
                session.mode = Mode.READY if session.pin is None else Mode.PINNED
                session.park(commands)
                self._hub.touched.append(session)

    def barrier(self, passed: Callable[[], None]) -> None:
        """`passed` is called once every change made so far has been told. Invalidations are written after the replies
        of the same turn of the server's loop, so it takes two PINGs, one after the other."""
        link = self._link
        if self.state is not State.ON or link is None:
            passed()
            return
        self._barriers.append(lambda: self._second_ping(passed))
        link.late = False
        link.send(_PING)

    def _second_ping(self, passed: Callable[[], None]) -> None:
        self._barriers.append(passed)
        if self._link is not None:
            self._link.send(_PING)

    # -- the connection -------------------------------------------------------------------------------------------

    async def run(self, serving: Callable[[], Side]) -> None:
        """Keep watching whoever serves."""
        if self.state is State.DISABLED:
            return
        while True:
            side = serving()
            await side.wait_up()
            try:
                link = await side.link("watch", self._hub.floor, self, resp=3, scanner=Decoder())
            except BackfillError as problem:
                log.debug("watch: %s", problem.text)
                await trio.sleep(AGAIN_SECONDS)
                continue
            self._lost = trio.Event()
            self._link = link
            self._barriers = [self._switched_on]
            link.send(_TRACK)
            await self._lost.wait()
            if self.state is State.ON:
                self.state = State.OFF
                self.on_gap()
            await trio.sleep(AGAIN_SECONDS if self.state is State.REFUSED else 0)

    def move(self) -> None:
        """Another side serves: begin anew there. Scripts wait until it is on."""
        if self.state is not State.DISABLED:
            self.state = State.OFF
            if self._link is not None:
                self._link.close()
            self._ended()

    def stop(self) -> None:
        """Nothing has to be seen any more: nobody mirrors."""
        if self._link is not None:
            self._link.close()
        self.state = State.DISABLED
        self._ended()
        self._release()

    def begin(self) -> None:
        """Something has to be seen again; scripts wait until it is. `run` is to be called next."""
        self.state = State.OFF

    def close(self) -> None:
        """The proxy stops."""
        if self._link is not None:
            self._link.wire.close()

    def _switched_on(self) -> None:
        self.state = State.ON
        self._release()

    def read_late(self) -> bool:
        """Read what was put off; whether there was anything."""
        return self._link is not None and self._link.read_late()

    def on_frames(self, frames: list[object]) -> None:
        """Decoded ones."""
        for frame in frames:
            if isinstance(frame, hiredis.PushNotification):
                self._changed(frame)
            elif isinstance(frame, hiredis.ReplyError):
                self._refused(str(frame))
            elif self._barriers:
                self._barriers.pop(0)()
        if self._link is not None:
            self._link.late = not self._barriers

    def _refused(self, text: str) -> None:
        self._barriers.clear()
        if self.state is State.OFF:
            log.warning("changes by others are not seen: %s", text)
            self.state = State.REFUSED
            self._release()

    def on_lost(self, link: Link, reason: str) -> None:
        if link is self._link:
            log.info("watch lost: %s", reason)
            self._ended()

    def _ended(self) -> None:
        self._link = None
        barriers, self._barriers = self._barriers, []
        for passed in barriers:
            if passed != self._switched_on:
                passed()
        self._lost.set()

    def on_full(self, full: bool) -> None:
        """Only PINGs are sent here."""

    # -- changes --------------------------------------------------------------------------------------------------

    def _changed(self, push: list[object]) -> None:
        if len(push) < 2 or push[0] != b"invalidate":
            return
        keys = push[1]
        if keys is None:
            if self._hub.clock() - self._flushed_at > GENERATION_SECONDS:
                self._hub.fall_back("a db was flushed by somebody else")
        elif isinstance(keys, list):
            self._keys_changed(keys)

    def _keys_changed(self, keys: list[bytes]) -> None:
        now = self._hub.clock()
        if self._scripts.may_have_written(now):
            self.during_scripts += len(keys)
            suspects = None if self._not_alone.may_have_written(now) else self._hub.suspects
            for key in keys:
                dbs = self._script_dbs
                if suspects is not None and self.is_written(key):
                    dbs = {db for db in dbs if (db, key) not in suspects}
                    for db in dbs:
                        suspects.seen((db, key))
                self._mark(key, dbs, "changed while a script ran")
            return
        unexplained = set(keys).difference(self.written, self._written_before)
        if unexplained:
            self.unexplained += len(unexplained)
            dbs = self._hub.dbs() | self._script_dbs | {0}
            for key in unexplained:
                self._mark(key, dbs, UNEXPLAINED)

    def _mark(self, key: bytes, dbs: set[int], reason: str) -> None:
        """Which db it was in is not told: where the key is not, its copy is a DEL of what should not be there."""
        for db in dbs:
            self._hub.repair.mark_unordered((db, key), reason, lag=True)
