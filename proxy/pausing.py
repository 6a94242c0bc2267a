"""CLIENT PAUSE: the proxy's clients wait, as a server's do.

Owns who waits and until when. ALL stops everybody before the next command; WRITE stops whoever sends a command that may
write (or publish), when its turn comes. Of two pauses the longer and the stricter hold (all versions). Those who were
blocked before go on waiting, and time out meanwhile; a flip may happen meanwhile. Servers are not told: the proxy's own
connections go on, so that the mirror side catches up.

Since 7.0 servers let scripts and functions through that promise not to write (flags=no-writes). A script's promise
stands in its text, which a digest names for ever; functions are asked for when one is called during a pause. A digest
whose script the proxy has not seen waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

import trio

from backfill.streams import pairs
from proxy.effects.scripting import NO_WRITES, promises_no_writes
from proxy.session import Command, Mode, Session
from resp.catalog import Route, Spec
from resp.errors import ProtocolError
from resp.frames import decode

if TYPE_CHECKING:
    from proxy.hub import Client, Hub

CLIENT_PAUSE = "CLIENT PAUSE"
MAX_MS = (1 << 63) - 1  # as servers count
LONGEST_SLEEP = 3600.0  # seconds; then the clock is looked at again
SCRIPTS = frozenset([b"SCRIPT LOAD", b"SCRIPT FLUSH"])  # 6.2 calls them writes


class Pause(IntEnum):
    """How strict it is."""

    NONE = 0
    WRITE = 1
    ALL = 2


def too_long(milliseconds: int) -> bool:
    """Whether the end would be at a moment that servers cannot count."""
    return milliseconds + int(time.time() * 1000) > MAX_MS


class Pausing:
    """The pause in force, and the clients that it has stopped."""

    def __init__(self, hub: Hub) -> None:
        self.kind = Pause.NONE
        self._hub = hub
        self._until = 0.0  # of the hub's clock
        self._held: dict[Session, tuple[Spec, Command]] = {}  # and at which command; in order of arrival
        self._functions: frozenset[bytes] = frozenset()  # those that promise not to write, as far as is known
        self._asked: tuple[int, int] | None = None  # in this pause, for them: which question, in which epoch
        self._questions = 0
        self._news = trio.Event()

    def __repr__(self) -> str:
        return f"<Pausing {self.kind.name} held={len(self._held)}>"

    def __str__(self) -> str:
        who = "all clients wait" if self.kind is Pause.ALL else "clients that write wait"
        return f"{who}, by CLIENT PAUSE, for {self.seconds_left:.1f} s more; CLIENT UNPAUSE ends it"

    @property
    def seconds_left(self) -> float:
        """Of the pause; 0 without one."""
        return max(0.0, self._until - self._hub.clock()) if self.kind else 0.0

    def begin(self, milliseconds: int, kind: Pause) -> None:
        """CLIENT PAUSE."""
        hub = self._hub
        self.end_in_time()
        self.kind = max(self.kind, kind)
        if not too_long(milliseconds):  # older servers compute a moment in the past, and go on
            self._until = max(self._until, hub.clock() + milliseconds / 1000)
        if self.kind is Pause.ALL:
            hub.pause(CLIENT_PAUSE)
        hub.screen_writes()
        self._news.set()

    def end(self) -> None:
        """CLIENT UNPAUSE, or the time is over: who was stopped goes on, first come, first served."""
        self.kind, self._until = Pause.NONE, 0.0
        self._functions, self._asked = frozenset(), None
        self._hub.screen_writes()
        held, self._held = self._held, {}
        for session in held:
            session.mode = Mode.READY if session.pin is None else Mode.PINNED
        self._hub.resume(CLIENT_PAUSE, first=held)

    def end_in_time(self) -> None:
        """End it if its time is over."""
        if self.kind and not self.seconds_left:
            self.end()

    def stops(self, session: Client) -> bool:
        """Whether the client waits for the end of the pause."""
        return session.mode is Mode.HELD or (self.kind is Pause.ALL and bool(session.backlog))

    def holds(self, session: Session, spec: Spec, args: Command) -> bool:
        """Whether this command has to wait; if so, its session does, from now on."""
        if not self.kind or not self._may_write(session, spec, args):
            return False
        session.mode = Mode.HELD
        self._held[session] = spec, args
        return True

    def left(self, session: Session) -> None:
        """The client is gone."""
        self._held.pop(session, None)

    def _may_write(self, session: Session, spec: Spec, args: Command) -> bool:
        """As servers see it: PUBLISH and PFCOUNT are among them, a script that promises not to write is not."""
        if spec.name == b"EXEC" and session.pin is not None and session.pin.transaction is not None:
            return any(self._writes(spec, args) for spec, args, _ in session.pin.transaction.queue)
        return self._writes(spec, args)

    def _writes(self, spec: Spec, args: Command) -> bool:
        if not spec.writes or spec.route is Route.REFUSED:
            return False
        if not spec.known:
            return spec.name in self._hub.router.catalog.server
        if self._hub.roles.serving_facts.version[1:] < (7, 0):
            return True
        promises = PROMISES.get(spec.name)
        if promises is not None and len(args) > 1:
            return not promises(self, args[1])
        return spec.name not in SCRIPTS

    # -- promises not to write -----------------------------------------------------------------------------------

    def _by_digest(self, digest: bytes) -> bool:
        return promises_no_writes(self._hub.recorder.scripts.body(digest))

    def _by_function(self, name: bytes) -> bool:
        """Not before the server has told; nobody can change what it tells, as that waits, too."""
        epoch = self._hub.roles.epoch
        if self._asked is None or self._asked[1] != epoch:
            self._questions += 1
            asked = self._asked = self._questions, epoch
            self._functions = frozenset()
            self._hub.lane.call(0, [[b"FUNCTION", b"LIST"]], lambda frame: self._told(asked, frame))
        return name.lower() in self._functions

    def _told(self, asked: tuple[int, int], frame: bytes | None) -> None:
        """Which functions there are: who was stopped without need goes on."""
        if asked != self._asked or asked[1] != self._hub.roles.epoch:
            return  # that pause is over, or that server serves no more
        if frame is None:  # lost: the next call asks again
            self._asked = None
            return
        self._functions = _without_writes(frame)
        for session, (spec, args) in list(self._held.items()):
            if not self._may_write(session, spec, args):
                del self._held[session]
                session.mode = Mode.READY if session.pin is None else Mode.PINNED
                session.resume_or_break()

    async def run(self, flush: Callable[[], None]) -> None:
        """Ends a pause when its time is over."""
        while True:
            self._news = trio.Event()
            self.end_in_time()
            flush()
            pause = min(self.seconds_left, LONGEST_SLEEP) if self.kind else float("inf")
            with trio.move_on_after(pause):
                await self._news.wait()


PROMISES: dict[bytes, Callable[[Pausing, bytes], bool]] = {
    b"EVAL": lambda pausing, script: promises_no_writes(script),
    b"EVALSHA": Pausing._by_digest,
    b"FCALL": Pausing._by_function,
}


def _without_writes(frame: bytes) -> frozenset[bytes]:
    """The names of the functions that promise not to write, in small letters as servers compare them: from the reply of
    an EXEC with FUNCTION LIST. None, where the server does not tell."""
    try:
        (libraries,) = decode(frame)
        functions = [pairs(each) for library in libraries for each in pairs(library)[b"functions"]]
        return frozenset(each[b"name"].lower() for each in functions if NO_WRITES in each[b"flags"])
    except (AttributeError, KeyError, TypeError, ValueError, ProtocolError):
        return frozenset()
