"""A whole proxy inside the test's own trio loop, between real servers: for schedules that must be exact.

    async with in_process(source, target) as running:
        client = await running.client()
        running.stall(running.hub.lane.link)          # its replies are not read until running.go(...)

Owns: the proxy's life, clients that say and hear raw RESP, and waiting for conditions instead of for time. What such a
test may do that others may not: look at the proxy's parts, and replace one of them (a guard) with something naive.
"""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from backfill.url import parse_url
from proxy.filling import Filling, Plan
from proxy.floor import READ
from proxy.hub import Hub
from proxy.link import Link
from proxy.pinned import Pinned
from proxy.roles import Clock, Name
from proxy.running import identity
from proxy.server import Proxy, Settings
from proxy.session import Mode, Session
from proxy.state import StateDir
from tests.differential.wire import pack, split_frames
from tests.equality import Difference, compare_servers
from tests.proxies import Address, url_of

WAIT_S = 20.0  # for what comes in milliseconds
POLL_S = 0.001

Words = str | Sequence[bytes]


def words(command: Words) -> list[bytes]:
    return command.encode().split() if isinstance(command, str) else list(command)


class HungUp(Exception):
    """The proxy closed the connection."""


class Client:
    """One application's connection."""

    def __init__(self, stream: trio.SocketStream, session: Session) -> None:
        self.session = session
        self._stream = stream
        self._data = b""
        self._frames: list[bytes] = []

    async def say(self, *commands: Words) -> None:
        """In one write; nothing is waited for."""
        await self._stream.send_all(b"".join(pack(words(command)) for command in commands))

    async def hear(self, count: int = 1) -> list[bytes]:
        """The next replies. Errors: HungUp."""
        with trio.fail_after(WAIT_S):
            while len(self._frames) < count:
                self._take(await self._receive())
        heard, self._frames = self._frames[:count], self._frames[count:]
        return heard

    async def ask(self, *commands: Words) -> list[bytes]:
        await self.say(*commands)
        return await self.hear(len(commands))

    def heard(self) -> list[bytes]:
        """The replies that are here by now."""
        with (
            suppress(BlockingIOError, ConnectionResetError),
            socket.socket(fileno=socket.dup(self._stream.socket.fileno())) as plain,
        ):
            while data := plain.recv(1 << 18):
                self._take(data)
        heard, self._frames = self._frames, []
        return heard

    def _take(self, data: bytes) -> None:
        frames, self._data = split_frames(self._data + data)
        self._frames += frames

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise HungUp(f"heard before: {self._frames}")
        return bytes(data)

    def leave(self) -> None:
        self._stream.socket.close()


class InProcess:
    """A running proxy."""

    def __init__(self, proxy: Proxy, source: Address, target: Address) -> None:
        self.proxy = proxy
        self.source, self.target = source, target
        self.clients: list[Client] = []
        self.defects: list[str] = []  # what the proxy logs as errors

    @property
    def hub(self) -> Hub:
        return self.proxy.hub

    async def client(self, resp: int = 2) -> Client:
        before = set(self.hub.sessions)
        stream = await trio.open_tcp_stream("127.0.0.1", self.proxy.port)
        await until(lambda: set(self.hub.sessions) - before, "the session of a new client")
        (number,) = set(self.hub.sessions) - before
        client = Client(stream, self.hub.sessions[number])
        self.clients.append(client)
        if resp == 3:
            await client.ask("HELLO 3")
        return client

    def hang_up(self) -> None:
        """All clients leave."""
        for client in self.clients:
            client.leave()
        self.clients.clear()

    # -- the state of things -------------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Everything is answered, acknowledged and copied."""
        await until(lambda: self._settled, "everything settled", lambda: f"{self.hub!r}")

    @property
    def _settled(self) -> bool:
        return self.hub.drained and self.hub.settled and self.hub.mirror.link is not None

    async def at_rest(self) -> None:
        """As `settled`, with a backfill if one is due."""
        await self.settled()
        while not self.proxy.state.durable.backfilled:
            filling = Filling(self.proxy)
            await filling.run(Plan())
            assert filling.progress.complete, filling.progress
            await self.settled()

    @property
    def busy(self) -> bool:
        """Whether any command is on its way: neither answered nor waiting for an element to be pushed."""
        hub = self.hub
        if not hub.drained or hub.touched:
            return True
        return any(
            session.owed
            or session.mode in (Mode.DRAINING, Mode.OPENING)
            or (session.backlog and session.mode is not Mode.WAITING)
            for session in hub.sessions.values()
        )

    async def differences(self, ttl_tolerance_ms: int = 300, **options: Any) -> list[Difference]:
        def compare() -> list[Difference]:
            urls = [side if isinstance(side, str) else side.url for side in (self.source, self.target)]
            return compare_servers(urls[0], urls[1], ttl_tolerance_ms, **options)

        return await trio.to_thread.run_sync(compare)

    def pin(self, client: Client) -> Pinned:
        pin = client.session.pin
        assert pin is not None
        return pin

    # -- lag and clocks ------------------------------------------------------------------------------------------

    def stall(self, link: Link | None) -> None:
        """What the server says on this connection is not heard from now on."""
        assert link is not None
        self.proxy.floor.watch(link, 0)

    def go(self, link: Link | None) -> None:
        if link is not None and link.fileno() >= 0:
            self.proxy.floor.watch(link, READ)

    def clocks(self, mirror_offset_ms: float, uncertainty_ms: float) -> None:
        """What the proxy believes of the servers' clocks, which are this machine's, and never ahead nor behind."""
        for name in Name:
            clock: Clock = self.proxy.roles.facts[name].clock
            clock.offset_ms, clock.uncertainty_ms = 0.0, 0.0
        mirror = self.proxy.roles.mirror_facts.clock
        mirror.offset_ms, mirror.uncertainty_ms = mirror_offset_ms, uncertainty_ms


async def until(
    condition: Callable[[], Any], what: str = "", detail: Callable[[], str] = str, timeout: float = WAIT_S
) -> None:
    """Until the condition holds; AssertionError if it never does."""
    with trio.move_on_after(timeout):
        while not condition():
            await trio.sleep(POLL_S)
        return
    raise AssertionError(f"did not come within {timeout:g} s: {what or condition} {detail()}")


class _Defects(logging.Handler):
    """Collects what a proxy calls its own defects."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@asynccontextmanager
async def in_process(
    source: Address,
    target: Address,
    *,
    by_source: str = "",
    by_target: str = "",
    backfilled: bool = True,
    sound: bool = True,
    watch: bool = False,
) -> AsyncIterator[InProcess]:
    """A proxy between two empty servers. `by_source`, `by_target`: URLs of relays to them. `backfilled`: there is
    nothing to backfill; otherwise the phase is `filling`. `sound`: the proxy may find no defect of its own. `watch`:
    with the watch for changes that no command names; it would mend what a guard that is switched off lets happen."""
    log, defects = logging.getLogger("crossfade"), _Defects()
    log.addHandler(defects)
    directory = Path(tempfile.mkdtemp(prefix="crossfade-"))
    urls = parse_url(by_source or url_of(source)), parse_url(by_target or url_of(target))
    settings = Settings(*urls, port=0, watch=watch)
    state = StateDir(directory / "state")
    state.open(identity(settings.source), identity(settings.target))
    proxy = Proxy(settings, state)
    running = InProcess(proxy, source, target)
    running.defects = defects.found
    try:
        async with trio.open_nursery() as nursery:
            ready = trio.Event()
            nursery.start_soon(proxy.run, ready.set, _no_jobs)
            with trio.fail_after(WAIT_S):
                await ready.wait()
            await until(lambda: proxy.hub.mirror.link is not None, "the mirror link")
            if backfilled:
                state.remember(backfilled=True, filled=True)
            yield running
            nursery.cancel_scope.cancel()
    finally:
        running.hang_up()
        state.close()
        shutil.rmtree(directory, ignore_errors=True)
        log.removeHandler(defects)
    assert not (sound and defects.found), "\n".join(defects.found)


async def _no_jobs(nursery: trio.Nursery) -> None:
    """Neither admin socket nor metrics."""
