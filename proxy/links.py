"""The connections that the fast floor lives on: one link to each server, in the role that the server plays.

Owns making them, making them again once a lost one is fenced (invariant 13), what clients hear while the serving side
is away, and that a mirror side that was absent at the start is no surprise. Mirroring is ended here, and begun again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from backfill.errors import BackfillError
from backfill.wire import Wire
from proxy.finish import FINISHED
from proxy.hub import DOWN
from proxy.lane import LaneLoss
from proxy.link import Link
from proxy.roles import Name
from proxy.side import Side
from resp.encode import error

if TYPE_CHECKING:
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

DOWN_LIMIT_SECONDS = 10.0  # commands wait for the serving side for so long, then they are answered with an error
RELINK_SECONDS = 0.2


class Links:
    """Of one proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._hub = proxy.hub
        self._looked_for: set[int] = set()
        self._loss: LaneLoss | None = None
        self._lost: dict[Name, trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[Name, trio.CancelScope] = {}  # of what keeps the connections to each side
        self._watching = trio.CancelScope()
        self._hub.on_lane_lost = self._lane_lost
        self._hub.on_mirror_lost = self._mirror_lost
        self._hub.repair.unknown_db = self._look_for_db

    def __repr__(self) -> str:
        return f"<Links lane={self._hub.lane.link!r} mirror={self._hub.mirror.link!r}>"

    def begin(self, nursery: trio.Nursery) -> None:
        """Keep them in this nursery from now on."""
        self._nursery = nursery
        proxy = self._proxy
        for side in proxy.sides.values() if not proxy.finished else [proxy.serving]:
            nursery.start_soon(self._keep_side, side.name)
        nursery.start_soon(self._keep_watch)

    async def _keep_side(self, name: Name) -> None:
        with trio.CancelScope() as self._scopes[name]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._proxy.sides[name].run)
                nursery.start_soon(self._keep_link, name)

    async def _keep_watch(self) -> None:
        with trio.CancelScope() as self._watching:
            await self._hub.watch.run(lambda: self._proxy.serving)

    def stop_mirroring(self) -> None:
        """Nothing is to be done for the mirror side any more."""
        self._scopes[self._proxy.roles.mirror].cancel()
        self._watching.cancel()
        self._hub.watch.stop()
        self._proxy.mirror.retire(FINISHED)

    def start_mirroring(self) -> None:
        """Connect to the mirror side again, and watch what changes."""
        assert self._nursery is not None
        self._nursery.start_soon(self._keep_side, self._proxy.roles.mirror)
        if self._proxy.settings.watch:
            self._hub.watch.begin()
            self._nursery.start_soon(self._keep_watch)

    async def _keep_link(self, name: Name) -> None:
        """Keep one link to this server, in the role that it plays at the moment."""
        side = self._proxy.sides[name]
        while True:
            await side.wait_up()
            try:
                await self._accept_mirror(side)
                dbs = await side.probe_dbs(self._hub.dbs())
                link = await side.link("link", self._proxy.floor, self._hub.lane)
            except BackfillError as problem:
                log.debug("%s: no link: %s", name.value, problem.text)
                await trio.sleep(RELINK_SECONDS)
                continue
            link.dbs |= dbs
            lost = self._attach(name, link)
            await lost.wait()
            await self._wait_fenced(name, link.wire)
            await side.ask_limit()
            await trio.sleep(RELINK_SECONDS)  # a link that is lost again and again is not made in a tight loop

    async def _accept_mirror(self, side: Side) -> None:
        """A target that was absent at the start must not be a surprise either. Errors: BackfillError."""
        proxy = self._proxy
        if side.name is not proxy.roles.mirror or proxy.state.durable.mirrored or proxy.settings.allow_non_empty:
            return
        dbs = await side.sizes()
        if dbs:
            proxy.problems["target"] = proxy.not_empty(side, dbs)
            raise BackfillError(proxy.problems["target"])
        proxy.problems.pop("target", None)

    async def _wait_fenced(self, name: Name, wire: Wire) -> None:
        """Fence a lost link. Commands do not wait for ever meanwhile: after a while they get an error."""
        async with trio.open_nursery() as nursery:
            if name is self._proxy.roles.serving:
                nursery.start_soon(self._give_up_later)
            await self._proxy.sides[name].fence(wire)
            nursery.cancel_scope.cancel()

    async def _give_up_later(self) -> None:
        await trio.sleep(DOWN_LIMIT_SECONDS)
        side = self._proxy.serving
        self._hub.refusal = f"crossfade: the serving side ({side.name.value}) is not reachable: {side.problem}"
        if self._loss is not None:
            self._loss.refuse(error("ERR " + self._hub.refusal))
        self._hub.resume(DOWN)

    def _attach(self, name: Name, link: Link) -> trio.Event:
        """Give a new link to the role that its server plays; the event is set when the link is lost."""
        lost = self._lost[name] = trio.Event()
        proxy = self._proxy
        if name is proxy.roles.mirror and not proxy.state.durable.mirrored:
            # Before the first effect goes there: after a crash its keys must be known to be our own.
            proxy.remember_now(mirrored=True)
        if name is proxy.roles.serving:
            self._attach_lane(link)
        else:
            self._hub.mirror.attach(link)
            for body in self._hub.recorder.scripts.bodies():
                self._hub.mirror.tell([b"SCRIPT", b"LOAD", body])
        self._hub.flush()
        return lost

    def _look_for_db(self, db: int) -> None:
        """A command named a db that no session has entered. Asked on another connection: a refused SELECT on the lane
        would cost everybody the lane."""
        if db in self._looked_for or self._nursery is None:
            return
        self._looked_for.add(db)
        self._nursery.start_soon(self._probe_db, db)

    async def _probe_db(self, db: int) -> None:
        try:
            there = db in await self._proxy.serving.probe_dbs({db})
            mirrored = db in await self._proxy.mirror.probe_dbs({db})
        except BackfillError:
            pass  # asked again with the next try of the key
        else:
            if not there:
                self._hub.repair.keys.drop_db(db)
            elif self._hub.lane.link is not None:
                self._hub.lane.link.dbs.add(db)
            if mirrored and self._hub.mirror.link is not None:
                self._hub.mirror.link.dbs.add(db)
        self._looked_for.discard(db)

    def _attach_lane(self, link: Link) -> None:
        hub = self._hub
        hub.lane.attach(link)
        self._proxy.use(self._proxy.serving)
        self._proxy.close_strangers(link)
        loss, self._loss = self._loss, None
        if loss is not None:
            hub.lane.replay(loss.reads)
        hub.refusal = ""
        hub.resume(DOWN)

    def _lane_lost(self, loss: LaneLoss) -> None:
        name = self._proxy.roles.serving
        log.warning(
            "link to the %s lost (%s): %d clients with writes in flight are disconnected, %d reads are asked again",
            name.value,
            loss.reason,
            len(loss.doomed),
            len(loss.reads),
        )
        self._loss = loss
        self._lost[name].set()

    def _mirror_lost(self, reason: str) -> None:
        name = self._proxy.roles.mirror
        log.warning("link to the %s lost (%s): what it had not acknowledged is dirty", name.value, reason)
        self._lost[name].set()

    async def dial_pin(self) -> Link:
        """A connection to the serving side for a pinned session. Errors: ConnectError."""
        return await self._proxy.serving.link("pin", self._proxy.floor, self._hub.lane)

    def fence_pin(self, wire: Wire, then: Callable[[], None]) -> None:
        """A pinned connection was lost with commands in flight: `then` runs once none of them can run any more."""
        side = self._proxy.serving

        async def fence() -> None:
            await side.fence(wire)
            then()
            self._hub.flush()

        assert self._nursery is not None
        self._nursery.start_soon(fence)
