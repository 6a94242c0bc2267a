"""The fast floor without sockets and servers: a hub whose lane, mirror and pinned connections are in the test's hand.

Tests read like transcripts: a client says something, the serving side got something, it answers, the client hears it.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from proxy.effects import give_rules
from proxy.hub import DOWN, Hub
from proxy.local import Local
from proxy.pins import Pins
from proxy.roles import Roles
from proxy.router import Router
from proxy.session import Session
from proxy.waiters import Waiters
from resp.catalog import Catalog
from resp.commands import CommandParser
from resp.encode import encode

OK, QUEUED, NIL, NIL_ARRAY, ONE, ZERO = b"+OK\r\n", b"+QUEUED\r\n", b"$-1\r\n", b"*-1\r\n", b":1\r\n", b":0\r\n"
OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
ERROR = b"-ERR no\r\n"
CLOCK = [b"1700000000", b"0"]


def words(command: str | bytes | list[bytes]) -> list[bytes]:
    if isinstance(command, list):
        return command
    return (command.encode() if isinstance(command, str) else command).split()


def bulk(text: str | bytes) -> bytes:
    value = text.encode() if isinstance(text, str) else text
    return b"$%d\r\n%b\r\n" % (len(value), value)


def array(*frames: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(frames), b"".join(frames))


def number(value: int) -> bytes:
    return b":%d\r\n" % value


def dumped(payload: bytes | None, ttl: int = -1) -> bytes:
    """The EXEC reply to a read in form DUMP (TIME, PTTL, DUMP)."""
    return array(array(*map(bulk, CLOCK)), number(ttl), NIL if payload is None else bulk(payload))


class FakeWire:
    """What is asked of a Wire."""

    def __init__(self, number: int) -> None:
        self.client_id = number
        self.pending_out = 0
        self.open = True

    def fileno(self) -> int:
        return 1000 + self.client_id if self.open else -1

    def close(self) -> None:
        self.open = False


class FakeLink:
    """A connection to a server that the test plays."""

    numbers = 0

    def __init__(self, stage: Stage, *, db: int = 0, dbs: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        FakeLink.numbers += 1
        self.wire = FakeWire(FakeLink.numbers)
        self.db, self.resp, self.dbs = db, 2, set(dbs)
        self.owner: Any = None
        self._stage = stage
        self._parser = CommandParser()
        self._got: list[list[bytes]] = []

    def __repr__(self) -> str:
        return f"<FakeLink {self.wire.client_id} {'open' if self.wire.open else 'closed'}>"

    def fileno(self) -> int:
        return self.wire.fileno()

    def send(self, data: bytes) -> None:
        assert self.wire.open, "sent on a closed connection"
        self._got += self._parser.feed(data)
        assert self._parser.error is None

    def send_pieces(self, pieces: list[bytes]) -> None:
        self.send(b"".join(pieces))

    def lose(self, reason: str) -> None:
        if self.close():
            self.owner.on_lost(self, reason)

    def close(self) -> bool:
        was_open, self.wire.open = self.wire.open, False
        return was_open

    # -- the test's side -----------------------------------------------------------------------------------------

    def got(self) -> list[str]:
        """The commands that came since the last look."""
        got, self._got = self._got, []
        return [b" ".join(args).decode(errors="backslashreplace") for args in got]

    def answers(self, *frames: bytes) -> None:
        """These frames arrive in one piece."""
        try:
            self.owner.on_frames(list(frames))
        except Exception as error:
            self.lose(f"defect: {error!r}")
        self._stage.serve()

    def breaks(self, reason: str = "closed by the server") -> None:
        self.lose(reason)
        self._stage.serve()


class FakeFloor:
    """Remembers what is watched for."""

    def __init__(self) -> None:
        self.events: dict[Any, int] = {}

    def add(self, handler: Any) -> None:
        self.events[handler] = 1

    def watch(self, handler: Any, events: int) -> None:
        assert handler.fileno() >= 0, "a closed socket"
        self.events[handler] = events

    def remove(self, handler: Any) -> None:
        self.events.pop(handler)

    def later(self) -> None:
        """The stage rests after every batch."""

    async def run(self) -> None:
        """`Stage.serve` does it."""


class Client:
    """A client of the proxy, at the other end of a socket pair."""

    def __init__(self, stage: Stage, number: int, *, authenticated: bool, db: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.sock = theirs
        self._stage = stage
        self.session = Session(stage.hub, ours, f"10.0.0.1:{number}", number, authenticated=authenticated, db=db)
        stage.hub.joined(self.session)

    def sends(self, data: bytes) -> None:
        """These bytes, in one piece (if they fit); the proxy reads them if it wants to."""
        self.sock.send(data)
        self._stage.serve()

    def says(self, *commands: str | bytes | list[bytes]) -> None:
        """These commands, in one piece."""
        self.sends(b"".join(encode(words(command)) for command in commands))

    def hears(self) -> bytes:
        """Everything that has come; b"<closed>" at the end when the proxy hung up."""
        heard = b""
        while True:
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                if self._stage.serve():
                    continue
                return heard
            except ConnectionResetError:
                return heard + b"<closed>"
            if not data:
                return heard + b"<closed>"
            heard += data

    def leaves(self) -> None:
        self.sock.close()
        self._stage.serve()


class Stage:
    """A hub with everything around it."""

    def __init__(self, *, password: str = "") -> None:
        self.now = 1000.0
        self.roles = Roles()
        for facts in self.roles.facts.values():
            facts.clock.uncertainty_ms = 0.5
        self.hub = Hub(self.roles, clock=lambda: self.now)
        self.floor = FakeFloor()
        self.hub.floor = self.floor
        self.hub.waiters = Waiters(self.hub)
        self.local = Local(self.hub, password=password)
        catalog = Catalog.default()
        give_rules(catalog)
        self.hub.router = Router(self.hub, catalog, self.local)
        self.dialled: list[FakeLink] = []
        self.fences: list[tuple[Any, Callable[[], None]]] = []
        self.hub.pins = Pins(self.hub, self._dial, run_at_once, lambda *fence: self.fences.append(fence))
        self.fallbacks: list[str] = []
        self.hub.on_filling = self.fallbacks.append
        self.losses: list[Any] = []
        self.hub.on_lane_lost = self.losses.append
        self.lane: FakeLink = self.new_lane()
        self.mirror: FakeLink = self.new_mirror()
        self.clients: list[Client] = []
        self.hub.resume(DOWN)

    def __repr__(self) -> str:
        return f"<Stage {self.hub!r}>"

    def serve(self) -> bool:
        """What the floor does, until nothing is left to do; whether there was anything."""
        served = False
        self.hub.flush()
        while ready := self._ready():
            served = True
            for handler, events in ready:
                if events & 1:
                    handler.on_readable()
                if events & 2:
                    handler.on_writable()
            self.hub.flush()
        return served

    def _ready(self) -> list[tuple[Any, int]]:
        poll = select.poll()
        handlers = {handler.fileno(): handler for handler in self.floor.events}
        for handler, events in self.floor.events.items():
            if events:
                poll.register(handler.fileno(), (select.POLLIN if events & 1 else 0) | (events & 2) * 2)
        return [
            (handlers[fd], bool(got & ~select.POLLOUT) + 2 * bool(got & select.POLLOUT)) for fd, got in poll.poll(0)
        ]

    async def _dial(self) -> Any:
        self.dialled.append(FakeLink(self))
        return self.dialled[-1]

    def new_lane(self) -> FakeLink:
        self.lane = FakeLink(self)
        self.hub.lane.attach(self.lane)  # type: ignore[arg-type]
        return self.lane

    def new_mirror(self) -> FakeLink:
        self.mirror = FakeLink(self)
        self.hub.mirror.attach(self.mirror)  # type: ignore[arg-type]
        return self.mirror

    def client(self, *, authenticated: bool = True, db: int = 0) -> Client:
        client = Client(self, len(self.clients) + 1, authenticated=authenticated, db=db)
        self.clients.append(client)
        return client

    @property
    def pin(self) -> FakeLink:
        """The connection that was pinned last."""
        return self.dialled[-1]

    @property
    def dirty(self) -> dict[tuple[int, bytes], str]:
        """Marked keys with the reason."""
        return {place: mark.reason for place, mark in self.hub.repair.keys._marks.items()}

    def copies(self, *payloads: bytes | None) -> None:
        """The serving side shows these keys to the repair, and the mirror takes the copies."""
        for payload in payloads:
            reads = self.lane.got()
            assert reads[0] == "MULTI", reads
            self.lane.answers(OK, *[QUEUED] * 3, dumped(payload))
            assert len(self.mirror.got()) == 1
            self.mirror.answers(OK)

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()
            client.session.sock.close()


def run_at_once(function: Callable[..., Any], *args: Any) -> None:
    """nursery.start_soon for a function that has nothing to wait for."""
    try:
        function(*args).send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")
