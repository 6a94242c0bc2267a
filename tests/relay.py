"""A TCP relay between a client and a server, to do to the bytes what networks do.

    with Relay(server) as relay:                        # relay.url in place of server.url
        relay.delay(0.05); relay.throttle(100_000)      # every connection, also those to come
        relay.stop()                                    # nothing moves, nothing closes; new connections are accepted
        relay.heal()                                    # as if nothing had been
        relay.cut()                                     # RST to both ends of every connection
        relay.strand(); relay.deliver()                 # see below

Stranding is what fencing is for: from the client's side every connection is reset, while the relay keeps the server's
side open with the bytes that the server has not had yet. `deliver()` hands them over later, as a middlebox may.

Owns a thread with a trio loop. Every method may be called from any thread and has taken effect when it returns.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import trio

T = TypeVar("T")

CHUNK_BYTES = 65536
DELIVER_S = 1.0  # for the server's answer to what was delivered; a paused one has it all the same
QUEUE_BYTES = 1 << 20  # read but not passed on yet; beyond it the sender is not read from
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST
_GONE = (OSError, trio.ClosedResourceError)


class HasUrl(Protocol):
    @property
    def url(self) -> str: ...


class Way(Enum):
    """The two directions of a connection, named by where the bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class Valve(Enum):
    """What one direction does with bytes."""

    OPEN = "open"
    HELD = "held"  # taken from the sender, kept in the relay
    SHUT = "shut"  # not even taken from the sender


class Rules:
    """How bytes go: one object for all connections, and a copy of it for one that is treated otherwise."""

    def __init__(self) -> None:
        self.valve = dict.fromkeys(Way, Valve.OPEN)
        self.delay = dict.fromkeys(Way, 0.0)  # seconds that each chunk is under way; the order stays
        self.rate = dict.fromkeys(Way, 0)  # bytes a second; 0: as they come
        self.changed = trio.Event()

    def tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class Pipe:
    """One direction of one connection: a reader, a queue, a writer."""

    def __init__(
        self, way: Way, rules: Rules, sender: trio.socket.SocketType, receiver: trio.socket.SocketType
    ) -> None:
        self.way, self.rules = way, rules
        self.sender, self.receiver = sender, receiver
        self.passed = 0  # bytes
        self.queued = 0  # bytes
        self.ended = False  # the receiver has seen the end of the stream: what still comes is dropped
        self._queue: deque[tuple[float, bytes]] = deque()  # (not before, bytes); b"" is the end of the stream
        self._news = trio.Event()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _wait(self) -> None:
        """For anything that may let us go on."""
        async with trio.open_nursery() as nursery:
            for event in (self.rules.changed, self._news):
                nursery.start_soon(self._first, event, nursery.cancel_scope)

    @staticmethod
    async def _first(event: trio.Event, scope: trio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async def read(self) -> None:
        data = b"more"
        while data:
            while self.rules.valve[self.way] is Valve.SHUT or self.queued > QUEUE_BYTES:
                await self._wait()
            data = await self.sender.recv(CHUNK_BYTES)
            self._queue.append((trio.current_time() + self.rules.delay[self.way], data))
            self.queued += len(data)
            self._wake()

    async def write(self) -> None:
        while True:
            while not self._queue or self.rules.valve[self.way] is not Valve.OPEN:
                await self._wait()
            due, data = self._queue[0]
            if due > trio.current_time():
                with trio.move_on_at(due):
                    await self._wait()
                continue
            self._queue.popleft()
            if not data:
                self.end()
                return
            if not self.ended:
                await self._send(data)
            self.queued -= len(data)
            self._wake()

    async def _send(self, data: bytes) -> None:
        rate = self.rules.rate[self.way]
        view = memoryview(data)
        while view:
            part = view[: max(1, rate // 20)] if rate else view
            sent = await self.receiver.send(part)
            self.passed += sent
            view = view[sent:]
            if rate:
                await trio.sleep(sent / rate)

    def end(self) -> None:
        """Tell the receiver that nothing more comes."""
        if not self.ended:
            self.ended = True
            self.receiver.shutdown(socket.SHUT_WR)

    def take(self) -> bytes:
        """What has been sent and not passed on: the queue, and what the kernel holds for us."""
        held = [data for _, data in self._queue]
        self._queue.clear()
        self.queued = 0
        with suppress(OSError), socket.socket(fileno=socket.dup(self.sender.fileno())) as plain:
            while data := plain.recv(CHUNK_BYTES):
                held.append(data)
        return b"".join(held)


class Connection:
    """A client's connection and ours to the server."""

    def __init__(self, rules: Rules, client: trio.socket.SocketType, server: trio.socket.SocketType) -> None:
        self.client, self.server = client, server
        self.pipes = {
            Way.TO_SERVER: Pipe(Way.TO_SERVER, rules, client, server),
            Way.TO_CLIENT: Pipe(Way.TO_CLIENT, rules, server, client),
        }
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        """Until both directions have ended, or one broke."""
        try:
            with self.scope, suppress(*_GONE):
                async with trio.open_nursery() as nursery:
                    for pipe in self.pipes.values():
                        nursery.start_soon(self._guarded, pipe.read)
                        nursery.start_soon(self._guarded, pipe.write)
        finally:
            self.client.close()
            self.server.close()

    async def _guarded(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except _GONE:  # one end has broken the connection: so has the other
            self.reset()

    def reset(self) -> None:
        for sock in (self.client, self.server):
            reset(sock)
        self.scope.cancel()


def reset(sock: trio.socket.SocketType) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


class Relay:
    """Listens on a loopback port that stays the same; `to` is a server, or its URL."""

    def __init__(self, to: HasUrl | str, *, port: int = 0) -> None:
        self._url = urlsplit(to if isinstance(to, str) else to.url)
        self.port = port
        self.accepted = 0
        self._rules: Rules
        self._connections: dict[Connection, None] = {}
        self._stranded: list[tuple[trio.socket.SocketType, bytes]] = []
        self._listener: trio.socket.SocketType | None = None
        self._accepting: trio.CancelScope | None = None
        self._nursery: trio.Nursery
        self._token: trio.lowlevel.TrioToken
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), name="relay", daemon=True)

    def __repr__(self) -> str:
        return f"<Relay {self.port} -> {self._url.hostname}:{self._url.port} connections={len(self._connections)}>"

    @property
    def url(self) -> str:
        """The server's URL, by way of the relay."""
        login, at, _ = self._url.netloc.rpartition("@")
        return urlunsplit(self._url._replace(netloc=f"{login}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def held(self) -> int:
        """Bytes that are in the relay at the moment: delayed, held, or too many for the receiver."""
        return self._call(lambda: sum(pipe.queued for one in self._connections for pipe in one.pipes.values()))

    # -- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._call(self._nursery.cancel_scope.cancel)
        self._thread.join()

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        return trio.from_thread.run_sync(function, *args, trio_token=self._token)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._rules = Rules()
        try:
            async with trio.open_nursery() as self._nursery:
                self._listen()
                self._ready.set()
                await trio.sleep_forever()
        finally:
            if self._listener is not None:
                self._listener.close()
            for sock, _ in self._stranded:
                sock.close()

    def _listen(self) -> None:
        plain = socket.create_server(("127.0.0.1", self.port), backlog=512)
        plain.setblocking(False)
        self.port = plain.getsockname()[1]
        self._listener = trio.socket.from_stdlib_socket(plain)
        self._nursery.start_soon(self._accept, self._listener)

    async def _accept(self, listener: trio.socket.SocketType) -> None:
        while True:
            try:
                client, _ = await listener.accept()
            except _GONE:
                return
            self.accepted += 1
            self._nursery.start_soon(self._connect, client)

    async def _connect(self, client: trio.socket.SocketType) -> None:
        with client, trio.socket.socket() as server:
            try:
                await server.connect((self._url.hostname or "127.0.0.1", self._url.port or 6379))
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                reset(client)
                return
            connection = Connection(self._rules, client, server)
            self._connections[connection] = None
            try:
                await connection.run()
            finally:
                del self._connections[connection]

    # -- every connection, now and to come -----------------------------------------------------------------------

    def heal(self) -> None:
        """Every byte goes as it comes; connections are accepted. What was stranded stays so."""
        self._call(self._heal)

    def _heal(self) -> None:
        old, self._rules = self._rules, Rules()
        old.tell()
        self._rule(self._rules)
        self._accept_again()

    def _rule(self, rules: Rules) -> None:
        """From now on these hold for every connection there is."""
        for connection in self._connections:
            for pipe in connection.pipes.values():
                old, pipe.rules = pipe.rules, rules
                old.tell()

    def delay(self, seconds: float, *ways: Way) -> None:
        """Every chunk is under way for so long, in the given directions (both, if none is given)."""
        self._call(self._set, "delay", seconds, ways)

    def throttle(self, bytes_per_second: int, *ways: Way) -> None:
        """So many bytes a second on each connection."""
        self._call(self._set, "rate", bytes_per_second, ways)

    def stop(self, *ways: Way) -> None:
        """Nothing moves, and nothing is closed. New connections are accepted, and hang."""
        self._call(self._set, "valve", Valve.SHUT, ways)

    def hold(self, *ways: Way) -> None:
        """Bytes are taken from the sender, and kept: the sender notices nothing."""
        self._call(self._set, "valve", Valve.HELD, ways)

    def _set(self, name: str, value: object, ways: tuple[Way, ...]) -> None:
        for way in ways or Way:
            getattr(self._rules, name)[way] = value
        self._rules.tell()

    # -- the connections of this moment --------------------------------------------------------------------------

    def stop_these(self, *ways: Way) -> int:
        """As stop(), but connections made from now on work: a middlebox that has forgotten these. How many."""
        return self._call(self._apart, Valve.SHUT, ways)

    def hold_these(self, *ways: Way) -> int:
        """As hold(), for the connections of this moment. How many."""
        return self._call(self._apart, Valve.HELD, ways)

    def _apart(self, valve: Valve, ways: tuple[Way, ...]) -> int:
        apart = Rules()
        apart.delay, apart.rate = dict(self._rules.delay), dict(self._rules.rate)
        apart.valve = {way: valve if way in (ways or Way) else Valve.OPEN for way in Way}
        self._rule(apart)
        return len(self._connections)

    def cut(self) -> int:
        """RST to both ends of every connection; how many."""
        return self._call(self._cut)

    def _cut(self) -> int:
        for connection in list(self._connections):
            connection.reset()
        return len(self._connections)

    def close_way(self, way: Way) -> int:
        """A FIN in this direction only: the receiver sees the end of the stream, the other direction goes on."""
        return self._call(self._close_way, way)

    def _close_way(self, way: Way) -> int:
        for connection in self._connections:
            with suppress(*_GONE):
                connection.pipes[way].end()
        return len(self._connections)

    def strand(self) -> int:
        """RST to every client, while the connections to the server stay open, with what it has not had (nothing, unless
        they were stopped or held). How many bytes that is."""
        return self._call(self._strand)

    def _strand(self) -> int:
        stranded = []
        for connection in list(self._connections):
            kept = socket.socket(fileno=socket.dup(connection.server.fileno()))
            kept.setblocking(False)
            held = connection.pipes[Way.TO_SERVER].take()
            stranded.append((trio.socket.from_stdlib_socket(kept), held))
            reset(connection.client)
            connection.server.close()  # our other descriptor of it stays
            connection.scope.cancel()
        self._stranded += stranded
        return sum(len(data) for _, data in stranded)

    def deliver(self) -> int:
        """Hand the stranded bytes over, then close; how many of the connections the server answered on."""
        return trio.from_thread.run(self._deliver, trio_token=self._token)

    async def _deliver(self) -> int:
        stranded, self._stranded = self._stranded, []
        alive = 0
        for sock, data in stranded:
            with sock, trio.move_on_after(DELIVER_S):
                alive += await self._hand_over(sock, data)
        return alive

    @staticmethod
    async def _hand_over(sock: trio.socket.SocketType, data: bytes) -> bool:
        """Whether the server took it, up to the end of the stream. It has run everything when it closes in turn."""
        try:
            while data:
                data = data[await sock.send(data) :]
            sock.shutdown(socket.SHUT_WR)
            answer = await sock.recv(CHUNK_BYTES)
            received = answer
            while received:
                received = await sock.recv(CHUNK_BYTES)
        except _GONE:
            return False
        return bool(answer)

    # -- the listener --------------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """New connections are refused; those there are stay."""
        self._call(self._refuse)

    def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def accept(self) -> None:
        """New connections are accepted again, on the same port."""
        self._call(self._accept_again)

    def _accept_again(self) -> None:
        if self._listener is None:
            self._listen()

    def lead_to(self, to: HasUrl | str) -> None:
        """New connections go to another server."""
        self._url = urlsplit(to if isinstance(to, str) else to.url)
