"""Plays a history on a proxy in this process, then looks whether both sides are equal.

Owns: the proxy's generations (a new one after every failure, so that a history is judged by itself alone), the clients.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from proxy.session import Mode
from tests.convergence.histories import History, Leave, Look, Net, Say, Wait, words
from tests.inprocess import Client, InProcess, in_process, until
from tests.servers import Server

REST_S = 8.0  # for everything to be settled; the longest way is a lost link and a backfill


class Peer:
    """One client, and what it is owed."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.owed = 0
        self.heard: list[bytes] = []

    def at_rest(self, unheard: bool) -> bool:
        """Nothing more will come by itself, not even when a timeout is over: what stands behind it would be taken
        while the sides are compared."""
        session = self.client.session
        self.heard += self.client.heard()
        if len(self.heard) >= self.owed or (session.mode is Mode.WAITING and session.hub.waiters.for_ever(session)):
            return True
        return unheard and session.pin is not None


class Stage:
    """Two servers with a proxy in between."""

    def __init__(self, source: Server, target: Server) -> None:
        self.source, self.target = source, target
        self.played = 0
        self._running: InProcess | None = None
        self._broken = trio.Event()
        self._ready = trio.Event()
        same = source.version == target.version
        self._options = {"stream_counters": same, "deleted_pending": same, "empty_consumers": same}

    async def run(self) -> None:
        """One generation of the proxy after the other."""
        while True:
            self._wipe()
            self._broken = trio.Event()
            async with in_process(self.source, self.target, sound=False) as running:
                self._running = running
                self._ready.set()
                await self._broken.wait()
                self._ready = trio.Event()

    def _wipe(self) -> None:
        for server in (self.source, self.target):
            with server.client() as client:
                client.flushall()

    async def play(self, history: History) -> None:
        """AssertionError if the sides differ at rest."""
        await self._ready.wait()
        assert self._running is not None
        try:
            await self._play(self._running, history)
        except BaseException:
            self._broken.set()
            await until(lambda: not self._ready.is_set())
            raise

    async def _play(self, running: InProcess, history: History) -> None:
        self.played += 1
        play = Play(running)
        for step in history:
            if isinstance(step, Look):
                await play.let_go()
                await self._look(running)
            else:
                await play.step(step)
        await play.let_go()
        await play.end()
        await self._look(running)
        self._wipe()

    async def _look(self, running: InProcess) -> None:
        try:
            with trio.fail_after(REST_S):
                await running.at_rest()
        except trio.TooSlowError:
            raise AssertionError(f"it does not come to rest: {running.hub!r}") from None
        assert not running.defects, "\n".join(running.defects)
        found = await running.differences(**self._options)
        assert not found, "\n".join(map(str, found))


class Play:
    """One history under way."""

    def __init__(self, running: InProcess) -> None:
        self._running = running
        self._hub = running.hub
        self._peers: dict[int, Peer] = {}
        self._unheard = False
        self._waiting = False

    async def step(self, step: Say | Leave | Wait | Net) -> None:
        match step:
            case Say():
                await self._say(step)
            case Leave():
                if step.client in self._peers:
                    self._running.clients.remove(self._peers[step.client].client)
                    self._peers.pop(step.client).client.leave()
            case Wait():
                await trio.sleep(step.ms / 1000)
            case Net():
                self._net(step)

    async def _say(self, step: Say) -> None:
        peer = self._peers.get(step.client)
        if peer is None:
            peer = self._peers[step.client] = Peer(await self._running.client(3 if step.client % 2 else 2))
        await peer.client.say(*(words(text) for text in step.commands))
        peer.owed += len(step.commands)
        if step.then:
            await self._rest(self._peers.values())

    async def _rest(self, peers: Iterable[Peer]) -> None:
        def resting() -> bool:
            for peer in peers:
                assert peer.client.session.open, f"a client was disconnected; heard: {peer.heard}"
            return all(peer.at_rest(self._unheard) for peer in peers)

        await until(resting, "the answers", lambda: str([(peer.owed, peer.heard) for peer in peers]))

    def _net(self, step: Net) -> None:
        hub, link = self._hub, self._hub.mirror.link
        match step:
            case Net.EFFECTS_WAIT:
                hub.mirror.flush = lambda: None  # type: ignore[method-assign]
                self._waiting = True
            case Net.EFFECTS_GO:
                self._effects_go()
            case Net.MIRROR_UNHEARD:
                if link is not None:
                    self._running.stall(link)
            case Net.MIRROR_HEARD:
                self._running.go(link)
            case Net.MIRROR_CUT:
                if link is not None:
                    link.lose("cut by the test")
            case Net.PINS_UNHEARD:
                self._unheard = True
                for pin in hub.pins._pins:
                    self._running.stall(pin.link)
            case Net.PINS_HEARD:
                self._pins_heard()

    def _effects_go(self) -> None:
        if self._waiting:
            del self._hub.mirror.flush
            self._waiting = False
            self._hub.flush()

    def _pins_heard(self) -> None:
        self._unheard = False
        for pin in self._hub.pins._pins:
            self._running.go(pin.link)

    async def let_go(self) -> None:
        """Every command is answered."""
        self._pins_heard()
        self._effects_go()
        self._running.go(self._hub.mirror.link)
        await self._rest(self._peers.values())

    async def end(self) -> None:
        """Every client is gone."""
        self._running.hang_up()
        await until(lambda: not self._hub.sessions and self._hub.pins.idle, "the end of the sessions")
