"""One client connection: its bytes in and out, and its state as Redis knows it.

Owns the client's socket, parser, output and backlog, and the mode that says who takes its next command. What a command
means is the router's business. Output is bounded: who does not read his replies is not read from, and in the end is
disconnected, as Redis does (invariant 8).
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from proxy.floor import READ, WRITE
from resp.commands import CommandParser
from resp.encode import error

if TYPE_CHECKING:
    from proxy.hub import Hub
    from proxy.pinned import Pinned

log = logging.getLogger("crossfade")

READ_BYTES = 64 * 1024
WIDE_READ_BYTES = 128 * 1024  # of who fills a read: a value of 64 KB then comes with its command in one
HELD_BYTES = 4 * 1024 * 1024  # of commands that wait to be taken; beyond it (see Hub.held_bytes) their client waits
PORTION = 2048  # commands of the backlog taken in one go
ENDS_MULTI = frozenset([b"EXEC", b"DISCARD"])
OUT_PAUSE_BYTES = 1024 * 1024  # unread replies beyond which the client's next commands wait
OUT_LIMIT_BYTES = 256 * 1024 * 1024  # unread replies beyond which the client is disconnected
MAX_WINDOW = 1024  # commands of one client in flight; the rest of its pipeline waits, so that others get their turn
FIRST_WINDOW = 64  # as long as the size of its replies is not known
WINDOW_BYTES = 4 * 1024 * 1024  # replies of one client in flight, judged by the size of its last ones
SMALL_REPLY_BYTES = WINDOW_BYTES // MAX_WINDOW
WEIGH_BYTES = 32 * 1024 * 1024  # read in full portions, or not taken, since clients were last weighed

Command = list[bytes]

LAST: Command = [b"end of input"]
"""Stands (by identity) behind the last command of a client that says no more: it hung up, or what it says is not RESP
(see `parser.error`)."""


class Mode(Enum):
    """Who takes the session's next command."""

    READY = "ready"  # the router
    DRAINING = "draining"  # nobody, until every reply owed is in; then the deferred action runs
    WAITING = "waiting"  # nobody: a blocking command has not been served
    HELD = "held"  # nobody: its next command may write, and CLIENT PAUSE does not let it
    OPENING = "opening"  # nobody: a pinned connection is being opened
    PINNED = "pinned"  # the router, for the pinned connection
    LEAVING = "leaving"  # nobody: it is closed as soon as everything has been said
    CLOSED = "closed"


READY, LEAVING, CLOSED = Mode.READY, Mode.LEAVING, Mode.CLOSED  # a look-up in the class is slow
TAKING = frozenset({Mode.READY, Mode.PINNED})
NEVER_SURE = frozenset({Mode.WAITING, Mode.HELD})  # what is waited for may never come


class Session:
    """A client."""

    is_client = True
    drains = True  # see `Handler`

    __slots__ = (
        "_deaf",
        "_events",
        "_held",
        "_in_multi",
        "_reads",
        "_unsent",
        "address",
        "authenticated",
        "backlog",
        "connected_at",
        "db",
        "deferred",
        "hub",
        "id",
        "last_at",
        "last_command",
        "library",
        "local_address",
        "mode",
        "muted",
        "name",
        "out",
        "owed",
        "parser",
        "pin",
        "resp",
        "skip_next",
        "sock",
        "user",
        "widest",
        "window",
    )

    def __init__(
        self, hub: Hub, sock: socket.socket, address: str, number: int, *, authenticated: bool, db: int
    ) -> None:
        self.hub = hub
        self.sock = sock
        self.address = address
        self.local_address = ""
        self.id = number
        self.db = db
        self.resp = 2
        self.name = b""
        self.user = b"default"
        self.library: dict[bytes, bytes] = {}
        self.authenticated = authenticated
        self.muted = False  # CLIENT REPLY OFF
        self.skip_next = 0  # CLIENT REPLY SKIP: replies still to be left out
        self.mode = Mode.READY
        self.owed = 0  # replies awaited from the lane or from the pinned connection
        self.out: list[bytes] = []
        self.backlog: deque[Command] = deque()
        self.deferred: Callable[[], None] | None = None
        self.pin: Pinned | None = None
        self.parser = CommandParser(authenticated=authenticated)
        self.connected_at: float = hub.clock()
        self.last_at: float = self.connected_at
        self.last_command: Command = []
        self.widest = MAX_WINDOW
        self.window = FIRST_WINDOW  # commands that may be in flight
        self._unsent = bytearray()  # what the socket did not take yet
        self._held = 0  # bytes read since the backlog was last empty
        self._in_multi = 0  # bytes read since a MULTI was opened: its commands are kept until EXEC
        self._reads = READ_BYTES  # asked for at once
        self._events = READ
        self._deaf = False  # it says no more: nothing is read

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.address} {self.mode.value} db={self.db} resp={self.resp} owed={self.owed}>"

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def open(self) -> bool:
        return self.mode is not Mode.CLOSED

    @property
    def buffered(self) -> int:
        """Bytes of a command that is not complete."""
        return self.parser.buffered

    def told(self, args: Command) -> bool:
        """Whether this is a command of another process of ours (proxy/front), and has been followed."""
        return False

    # -- in ------------------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        try:
            data = self.sock.recv(self._reads)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hung_up()
        elif len(data) < READ_BYTES:
            self._reads = READ_BYTES
            self.read(data)
        else:
            self._read_much(data)

    def _read_much(self, data: bytes) -> None:
        """As much was read as is asked for at first: most often there is more, which it would not be told of again."""
        more = len(data) == self._reads
        if self.backlog or self.hub.paused:
            self._reads = READ_BYTES
        elif len(data) == READ_BYTES:
            self._reads = WIDE_READ_BYTES
            try:
                rest = self.sock.recv(WIDE_READ_BYTES)
                more = len(rest) in (0, WIDE_READ_BYTES)
                data += rest
            except BlockingIOError:
                more = False
            except OSError:
                more = True  # told again, it finds out
        self._count(len(data))
        self.read(data)
        if more and self._events and self.mode is not CLOSED:
            self.hub.floor.watch(self, self._events)

    def read(self, data: bytes) -> None:
        """Take what has come, or park it."""
        if (
            self.mode is READY
            and self.parser.fresh
            and not (self.backlog or self._unsent)
            and self.hub.express.take(self, data)
        ):
            return
        commands = self._parse(data)
        self._held += len(data)
        if self.pin is not None:
            self._in_multi = self._in_multi + len(data) if self.pin.in_multi else 0
        if self.backlog or self.hub.paused or self.mode not in TAKING:
            self.backlog.extend(commands)
            self._watch()
            if self._held >= self.hub.held_bytes:
                self.resume()
        elif commands:
            self.hub.router.dispatch(self, commands)
        if not self.backlog:
            self._held = 0

    def _hung_up(self) -> None:
        """The client says no more. What it has said is executed, as a server would have it, and it hears the answers;
        unless it waits for something that may never come."""
        said = self.owed or self.out or self._unsent or self.backlog or self.mode is not READY
        if not said or self.mode in NEVER_SURE or self.pin is not None:
            self.close()
        else:
            self._deaf = True
            self.backlog.append(LAST)
            self.resume()

    def end(self) -> None:
        """Everything it said has been taken: hang up when that is answered."""
        problem = self.parser.error
        farewell = b"" if problem is None else error("ERR " + problem.text)
        self.when_idle(lambda: self.leave(farewell))

    def _parse(self, data: bytes) -> list[Command]:
        commands = self.parser.feed(data)
        if self.parser.error is not None and not self._deaf:
            self._deaf = True  # nothing behind the broken bytes can be understood
            commands.append(LAST)
            self._watch()
        return commands

    def read_on(self) -> None:
        """AUTH or HELLO was answered: the parser has waited for that, as the limits for what follows depend on it."""
        self.backlog.extend(self._parse(b""))  # taken at the next flush, as there is an answer to send

    def broke(self, problem: Exception) -> None:
        """A defect of ours: this client is disconnected, the others stay."""
        log.error("client %s is disconnected because of a defect: %r", self.address, problem, exc_info=problem)
        self.close()

    def park(self, commands: list[Command]) -> None:
        """Keep commands that cannot be taken now; in front of what came later."""
        self.backlog.extendleft(reversed(commands))
        self._watch()

    def resume(self) -> None:
        """Take parked commands, as far as that goes."""
        if not self.backlog:
            return
        if self.hub.paused or self.mode not in TAKING or self.choked:
            self._watch()
            return
        self.hub.router.dispatch(self, self._next_commands())
        if not self.backlog:
            self._held = 0
        elif self.owed == 0 and not self.out and self.mode in TAKING:
            self.hub.touched.append(self)  # nothing is owed whose reply would bring it back here
        self._watch()

    def resume_or_break(self) -> None:
        """As `resume`, in a place where a defect must not keep others from going on."""
        try:
            self.resume()
        except Exception as problem:
            self.broke(problem)

    def _next_commands(self) -> list[Command]:
        """A portion of the backlog that does not end inside a MULTI block."""
        backlog = self.backlog
        commands = [backlog.popleft() for _ in range(min(len(backlog), PORTION))]
        if backlog and _ends_in_multi(commands):
            while backlog:
                commands.append(backlog.popleft())
                if commands[-1][0].upper() in ENDS_MULTI:
                    break
        return commands

    def when_idle(self, action: Callable[[], None]) -> None:
        """Run `action` once every reply owed is in; until then no command is taken."""
        if self.owed == 0:
            action()
        else:
            self.mode = Mode.DRAINING
            self.deferred = action

    def drained(self) -> None:
        """Replies came in: run what waited for the last of them, then go on. Called at every flush."""
        if self.deferred is not None and self.owed == 0 and self.mode is Mode.DRAINING:
            action, self.deferred = self.deferred, None
            self.mode = Mode.PINNED if self.pin is not None else Mode.READY
            action()
        if self.backlog and self.owed <= self.window // 2:
            self.resume()

    # -- out -----------------------------------------------------------------------------------------------------

    def reply(self, frame: bytes) -> None:
        """A reply that was owed."""
        self.owed -= 1
        if not self.out:
            self.hub.touched.append(self)
        if self.muted or self.skip_next:
            self.skipped()
        else:
            self.out.append(frame)

    def replies(self, frames: list[bytes]) -> None:
        """Replies that were owed."""
        if self.muted or self.skip_next:
            for frame in frames:
                self.reply(frame)
            return
        self.owed -= len(frames)
        if not self.out:
            self.hub.touched.append(self)
        self.out += frames

    def put(self, frame: bytes) -> None:
        """A reply made by the proxy, or a push: nothing was owed."""
        if not self.out:
            self.hub.touched.append(self)
        if self.muted or self.skip_next:
            self.skipped()
        else:
            self.out.append(frame)

    def push(self, frame: bytes) -> None:
        """An out-of-band message: not subject to CLIENT REPLY."""
        if not self.out:
            self.hub.touched.append(self)
        self.out.append(frame)

    def confirm(self, frame: bytes, *, last: bool) -> None:
        """A reply that was owed, and that is told whatever CLIENT REPLY says: a change of subscriptions. `last`: of its
        command."""
        self.owed -= 1
        self.push(frame)
        if last:
            self.skipped()

    def skipped(self) -> None:
        """What CLIENT REPLY SKIP was about is over."""
        if self.skip_next and not self.muted:
            self.skip_next -= 1

    def flush(self) -> None:
        """Send what has gathered."""
        out = self.out
        if not out:
            if self._events != READ:
                self._watch()
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        if len(data) > SMALL_REPLY_BYTES or self.window != self.widest:
            size = len(data) // len(out)
            self.window = self.widest if size <= SMALL_REPLY_BYTES else max(2, self.widest * SMALL_REPLY_BYTES // size)
        out.clear()
        if self.mode is CLOSED:
            return
        if self._unsent:
            self._unsent += data
            self._count(len(data))
            if len(self._unsent) > OUT_LIMIT_BYTES:
                log.warning("client %s is disconnected: it does not read, %d bytes wait", self.address, self.weight)
                self.close()
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent = bytearray(memoryview(data)[sent:])
            self._watch()
            self._count(len(self._unsent))
        elif self.mode is LEAVING:
            self.close()
        elif self._events != READ:
            self._watch()

    def on_writable(self) -> None:
        if self.mode is Mode.CLOSED:
            return
        try:
            sent = self.sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        if not self._unsent:
            if self.mode is Mode.LEAVING:
                self.close()
                return
            self._watch()
            self.resume()

    @property
    def choked(self) -> bool:
        """Too much is unread: take no further command now. A client that sends a long pipeline before it reads must be
        read from all the same, or both would wait for ever; at the limit of that, its commands are taken after all."""
        return len(self._unsent) > OUT_PAUSE_BYTES and self._held < self.hub.held_bytes

    @property
    def weight(self) -> int:
        """Bytes that this client makes us keep: a command that is still coming, a MULTI that is open, replies that it
        does not read. What waits in the backlog is bounded on its own."""
        return len(self._unsent) + self.parser.buffered + self._in_multi

    def _count(self, size: int) -> None:
        """Much has come, or stays: what all clients make us keep is weighed again before long."""
        hub = self.hub
        hub.moved += size
        if hub.moved > WEIGH_BYTES:
            hub.weigh()

    def _watch(self) -> None:
        if self.mode is Mode.CLOSED:
            return
        room = self._held < self.hub.held_bytes and not (self.hub.paused and self.backlog)
        reading = room and not self._deaf and self.mode is not Mode.LEAVING
        events = (READ if reading else 0) | (WRITE if self._unsent else 0)
        if events != self._events:
            self._events = events
            self.hub.floor.watch(self, events)

    # -- end -----------------------------------------------------------------------------------------------------

    def leave(self, frame: bytes) -> None:
        """Say this, whatever CLIENT REPLY says, and hang up once it has been sent."""
        self.push(frame)
        self.mode = Mode.LEAVING
        self.backlog.clear()
        self._watch()

    def close(self) -> None:
        """Hang up now."""
        if self.mode is Mode.CLOSED:
            return
        self.mode = Mode.CLOSED
        self.hub.floor.remove(self)
        self.sock.close()
        self.backlog.clear()
        self.out.clear()
        self.deferred = None
        self.hub.left(self)


def _ends_in_multi(commands: list[Command]) -> bool:
    for args in reversed(commands):
        name = args[0].upper()
        if name in ENDS_MULTI:
            return False
        if name == b"MULTI":
            return True
    return False
