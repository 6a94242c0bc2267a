"""One running proxy: puts fast floor and slow floor together.

Owns the start and the stop, which server plays which role towards the fast floor, and the phase. The nursery here holds
everything that waits: control connections, the keepers of lane and mirror link (`links.py`), listeners, jobs.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

import trio

from backfill.errors import ConnectError
from backfill.url import Url
from proxy.descriptors import TOO_MANY, allowed_clients
from proxy.effects import give_rules
from proxy.finish import FINISHED, retire
from proxy.floor import platform_floor
from proxy.front.fronts import Fronts
from proxy.front.guests import Guest
from proxy.hub import DOWN, Hub
from proxy.journal import Journal, JournalError, Sync, WhenFull, crossings, unsettled
from proxy.link import Link
from proxy.links import Links
from proxy.local import Local
from proxy.pins import Pins
from proxy.problems import Problems
from proxy.progress import forget, load
from proxy.recovery import restarted
from proxy.roles import Name, Roles
from proxy.router import Router
from proxy.session import Session
from proxy.side import Side
from proxy.state import StateDir
from proxy.upkeep import Upkeep
from proxy.waiters import Waiters
from proxy.watch import Watch
from resp.catalog import Catalog

log = logging.getLogger("crossfade")

BACKLOG = 1024  # connections the kernel holds until they are accepted


class Phase(Enum):
    """How far the migration is."""

    FILLING = "filling"  # no complete backfill yet
    CONVERGING = "converging"  # dirty keys left
    IN_SYNC = "in-sync"
    FINISHED = "finished"  # nothing is mirrored any more


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator chose."""

    source: Url
    target: Url
    host: str = "127.0.0.1"
    port: int = 7379
    no_auth: bool = False
    allow_non_empty: bool = False
    journal_sync: Sync = Sync.EVERYSEC
    journal_full: WhenFull = WhenFull.CONTINUE
    watch: bool = True
    scrub: float = 200.0  # keys a second that are compared in the background; 0: none
    ferry: int = 20_000  # keys from which on a backfill is done by a process of its own; 0: never
    workers: int = 0  # front processes; 0: this process talks to the clients itself


class Refused(Exception):
    """The proxy will not start like this; `text` says why and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Proxy:
    """A proxy between two servers."""

    def __init__(self, settings: Settings, state: StateDir) -> None:
        durable = state.durable
        self.settings = settings
        self.state = state
        self.roles = Roles(durable.serving, durable.epoch)
        self.hub = Hub(self.roles)
        self.floor = platform_floor(self.hub.serve, self.hub.rest)
        self.hub.floor = self.floor
        self.hub.waiters = Waiters(self.hub)
        self.hub.watch = Watch(self.hub, enabled=settings.watch)
        self.hub.watch.on_gap = self._watch_gap
        self.hub.repair.frozen = durable.frozen
        self.hub.repair.on_swap = self.forget_checkpoint
        self.hub.on_filling = self.fall_back
        self.sides = {
            Name.SOURCE: Side(Name.SOURCE, settings.source, self.roles.facts[Name.SOURCE], durable.instance),
            Name.TARGET: Side(Name.TARGET, settings.target, self.roles.facts[Name.TARGET], durable.instance),
        }
        password = "" if settings.no_auth else settings.source.password
        self.local = Local(self.hub, user=settings.source.user, password=password)
        self.hub.router = Router(self.hub, Catalog.default(), self.local)
        self.problems = Problems()
        self.refill_reason = ""  # why a new backfill is due, or was
        self.flips: list[dict[str, object]] = []
        self.journal = Journal(state.path / "journal", sync=settings.journal_sync, when_full=settings.journal_full)
        self.port = settings.port
        self.max_clients = allowed_clients()
        self.turned_away = 0  # clients too many
        self.verified_epoch = -1  # the epoch in which a verify last found both sides equal
        self.refills = 0  # how often `fall_back` was called: a backfill under way has to begin again
        self.fronts = Fronts(self, settings.workers)
        self.hub.on_screening = self.fronts.greet
        self.links = Links(self)
        self._numbers = 0

    def __repr__(self) -> str:
        return f"<Proxy {self.roles!r} phase={self.phase.value} {self.hub!r}>"

    def _watch_process(self, side: Side) -> None:
        """What a former proxy knew of the server, so that a replaced one is noticed at once."""
        durable, name = self.state.durable, side.name
        side.facts.run_id, side.size = durable.run_ids.get(name.value, ""), durable.sizes.get(name.value, 0)

        def on_restart(before: int, now: int) -> None:
            restarted(self, name, before, now)

        side.on_restart = on_restart

    @property
    def finished(self) -> bool:
        """Whether mirroring was ended (see finish.py): the mirror side is not even connected to."""
        return self.state.durable.finished > 0

    @property
    def phase(self) -> Phase:
        if self.finished:
            return Phase.FINISHED
        if not self.state.durable.backfilled:
            return Phase.FILLING
        if self.hub.repair.keys.dirty or self.hub.mirror.link is None or self.mirror.problem:
            return Phase.CONVERGING
        return Phase.IN_SYNC

    @property
    def serving(self) -> Side:
        return self.sides[self.roles.serving]

    @property
    def mirror(self) -> Side:
        return self.sides[self.roles.mirror]

    def fall_back(self, reason: str) -> None:
        """Equality is lost beyond single keys: a new backfill is due."""
        if self.finished:
            return
        log.warning("back to filling: %s", reason)
        self.refill_reason = reason
        self.verified_epoch = -1
        self.state.remember(backfilled=False)
        self.refill()

    def refill(self) -> None:
        """Whatever a backfill has copied so far says nothing any more."""
        self.refills += 1
        self.forget_checkpoint()

    def forget_checkpoint(self, *, partial: bool | None = None) -> None:
        """No later backfill goes on from where one has come; of one kind, or of both."""
        try:
            for kind in (False, True) if partial is None else (partial,):
                forget(self.state.path, partial=kind)
        except OSError as problem:
            self.problems["state"] = f"the backfill's checkpoint cannot be removed: {problem.strerror}"

    def _watch_gap(self) -> None:
        """Changes that no command of ours explains may have been missed."""
        self.verified_epoch = -1
        self.problems["watch"] = (
            f"at {time.strftime('%H:%M:%S')} changes by expiry, eviction, scripts or other writers may have been "
            "missed: run `crossfade verify --repair`"
        )

    def remember_now(self, **changes: object) -> None:
        """Durable before anybody is told, if that is possible; else as soon as it is."""
        try:
            self.state.save(**changes)
        except OSError as problem:
            self.problems["state"] = f"the state cannot be saved: {problem.strerror}"
            self.state.remember(**changes)

    # -- start ---------------------------------------------------------------------------------------------------

    async def run(self, on_ready: Callable[[], None], jobs: Callable[[trio.Nursery], Awaitable[None]]) -> None:
        """Serve until cancelled. Errors: ConnectError, Refused, OSError (listening)."""
        self._open_journal()
        for side in self.sides.values():
            self._watch_process(side)
        await self._first_look()
        listeners = await self._listen()
        try:
            await self._serve(listeners, on_ready, jobs)
        finally:
            self._close(listeners)

    async def _serve(
        self,
        listeners: Sequence[trio.SocketListener],
        on_ready: Callable[[], None],
        jobs: Callable[[trio.Nursery], Awaitable[None]],
    ) -> None:
        async with trio.open_nursery() as nursery:
            self.hub.pins = Pins(self.hub, self.links.dial_pin, nursery.start_soon, self.links.fence_pin)
            self.links.begin(nursery)
            nursery.start_soon(self.floor.run)
            nursery.start_soon(self.hub.waiters.run, self.hub.flush)
            nursery.start_soon(self.hub.pausing.run, self.hub.flush)
            nursery.start_soon(Upkeep(self).run)
            await self.hub.until(lambda: self.hub.lane.link is not None)
            self.state.save(started=True, clean=False)
            await jobs(nursery)
            await nursery.start(self.fronts.run)
            for listener in listeners:
                nursery.start_soon(self._accept, listener)
            on_ready()

    def _close(self, listeners: Sequence[trio.SocketListener]) -> None:
        for listener in listeners:
            listener.socket.close()
        for session in list(self.hub.sessions.values()):
            session.sock.close()
        for link in (self.hub.lane.link, self.hub.mirror.link):
            if link is not None:
                link.wire.close()
        self.hub.pins.close()
        self.hub.watch.close()
        self.journal.close()

    async def _first_look(self) -> None:
        """Both servers, once: the serving side must be there, the mirror side must not be a surprise."""
        await self.serving.open()
        if self.finished:
            return
        try:
            await self.mirror.open()
            dbs = await self.mirror.sizes()
        except ConnectError as problem:
            if problem.kind == "auth":
                raise
            log.warning(
                "%s is absent (%s): writes are kept as dirty keys until it is there",
                self.mirror.name.value,
                problem.text,
            )
            return
        if self.serving.facts.run_id and self.serving.facts.run_id == self.mirror.facts.run_id:
            raise Refused("source and target are the same server")
        if dbs and not self.state.durable.mirrored and not self.settings.allow_non_empty:
            raise Refused(self.not_empty(self.mirror, dbs))

    @staticmethod
    def not_empty(side: Side, dbs: dict[int, int]) -> str:
        """What is said of a mirror side with keys that are not ours."""
        return (
            f"the {side.name.value} {side.url.address} is not empty: {sum(dbs.values()):,} keys in db "
            f"{', '.join(map(str, dbs))}. Empty it, or start with --allow-non-empty: keys that the source does not "
            "have will then be deleted there"
        )

    async def _listen(self) -> Sequence[trio.SocketListener]:
        settings = self.settings
        if self.local.open and not settings.no_auth and settings.host not in ("127.0.0.1", "::1", "localhost"):
            raise Refused(
                f"listening on {settings.host} without a password: anybody who reaches it could write. "
                "Give the source URL a password, or say --no-auth"
            )
        try:
            listeners = await trio.open_tcp_listeners(settings.port, host=settings.host, backlog=BACKLOG)
        except OSError as problem:
            raise Refused(
                f"cannot listen on {settings.host}:{settings.port}: {problem.strerror or problem}; "
                "choose another --listen HOST:PORT"
            ) from None
        self.port = listeners[0].socket.getsockname()[1]
        return listeners

    async def _accept(self, listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as problem:  # too many open files: wait for some to be closed
                self.problems["accept"] = f"new clients have to wait: {problem.strerror}; tried again all the time"
                await trio.sleep(0.1)
                continue
            self.problems.pop("accept", None)
            self._join(socket.socket(fileno=stream.socket.detach()))

    def _join(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = sock.getpeername()[:2]
            local_address = "{}:{}".format(*sock.getsockname()[:2])
        except OSError:  # gone already, as health probes are
            sock.close()
            return
        if self.hub.client_count >= self.max_clients:
            self._turn_away(sock)
            return
        authenticated, db = self.local.open, self.settings.source.db
        session = Session(self.hub, sock, f"{host}:{port}", self.next_number(), authenticated=authenticated, db=db)
        session.local_address = local_address
        if not self.fronts.take(session):
            self.hub.joined(session)

    def next_number(self) -> int:
        """The id of a new client."""
        self._numbers += 1
        return self._numbers

    def _turn_away(self, sock: socket.socket) -> None:
        """As a server does at its maxclients."""
        if not self.turned_away:
            log.warning("clients are turned away: there are %d already, which is as many as may be", self.max_clients)
        self.turned_away += 1
        with suppress(OSError):
            sock.send(TOO_MANY)
        sock.close()

    # -- journal -------------------------------------------------------------------------------------------------

    def _open_journal(self) -> None:
        """Take over what a former proxy left unsettled, then begin a journal of our own. Errors: Refused, OSError."""
        if self.finished:
            retire(self)
            self.hub.watch.stop()
            self.mirror.retire(FINISHED)
            return
        directory = self.state.path / "journal"
        durable = self.state.durable
        goes_on = any(load(self.state.path, partial=partial) is not None for partial in (False, True))
        if durable.started and not durable.clean and (durable.backfilled or goes_on):
            try:
                left = unsettled(directory)
            except JournalError as problem:
                raise Refused(f"{problem.text}: remove it and run a new backfill") from None
            if left is None:
                self.fall_back("the proxy was not stopped cleanly and its journal is not complete: backfill again")
            else:
                log.info("the proxy was not stopped cleanly: %d keys are copied again", len(left))
                for place in left:
                    self.hub.repair.mark_unordered(place, "unsettled when the proxy was killed")
        try:
            under_way = crossings(directory)
            if under_way:
                log.info("%d keys that another process was copying are copied again", len(under_way))
            for place in under_way:
                self.hub.repair.mark_unordered(place, "was being copied when the proxy was killed")
            self.journal.open(settled=not durable.started or durable.clean)
        except JournalError as problem:
            raise Refused(f"{problem.text}: remove it and run a new backfill") from None
        self.hub.journal = self.journal

    def begin_journal(self) -> None:
        """Have a journal again, after a start without one. Errors: OSError."""
        if not self.journal.opened:
            self.journal.open(settled=True)

    # -- flip ----------------------------------------------------------------------------------------------------

    def use(self, side: Side) -> None:
        """This side's commands decide from now on."""
        give_rules(side.catalog)
        self.local.hello, self.local.version, self.local.commands = side.hello, side.facts.version, side.facts.commands
        self.hub.router.use(side.catalog)
        self.fronts.greet()

    def close_strangers(self, link: Link) -> None:
        """A session in a db that the serving side does not have cannot go on: its commands would run in another db."""
        everybody: list[Session | Guest] = [*self.hub.sessions.values(), *self.hub.guests.values()]
        for client in everybody:
            if client.db not in link.dbs:
                log.warning("client %s is disconnected: the serving side has no db %d", client.address, client.db)
                client.close()

    async def dial_ahead(self) -> Link:
        """A connection for a pinned session to the side that is about to serve. Errors: ConnectError."""
        return await self.mirror.link("pin", self.floor, self.hub.lane)

    def swap_roles(self) -> None:
        """Serve from the other side, after role and epoch are durable. What is still in flight (a forced flip) is given
        up: its connection is closed first."""
        hub = self.hub
        hub.lane.abandon()
        hub.mirror.abandon()
        lane_link, mirror_link = hub.lane.detach(), hub.mirror.detach()
        self.roles.serving = self.roles.mirror
        self.roles.epoch = self.state.durable.epoch
        if mirror_link is not None:
            hub.lane.attach(mirror_link)
            self.close_strangers(mirror_link)
            hub.resume(DOWN)
        if lane_link is not None:
            hub.mirror.attach(lane_link)
        hub.repair.restart_forms()
        hub.recorder.wanted.clear()
        hub.mirror.judge.misunderstood.clear()
        self.use(self.serving)
        hub.watch.move()

    # -- stop ----------------------------------------------------------------------------------------------------

    async def stop(self, patience: float = 5.0) -> bool:
        """Stop taking commands, let everything settle; True when both sides are known to be equal as they were."""
        self.hub.pause("stopping")
        self.hub.repair.hurry(True)
        with trio.move_on_after(patience):
            await self.hub.until(lambda: self.hub.drained and self.hub.settled)
        clean = self.hub.drained and self.hub.settled and (self.finished or self.hub.mirror.link is not None)
        with suppress(OSError):  # then the next start takes this stop for a crash
            self.state.save(clean=clean)
        return clean
