"""The centre of one front: its guests, its relayed clients, the trunk, and the channel to the owner.

Owns what a session asks of its hub, the order of one flush, and the way of a client from the trunk to a connection of
its own. There is no journal, no mirror and no watch here: all of that is the owner's.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import trio

from backfill.wire import Wire
from proxy.crowd import part_of_each, settle, shed
from proxy.floor import platform_floor
from proxy.front.channel import Channel, Message
from proxy.front.guests import state_of
from proxy.front.relay import Relay
from proxy.front.router import FrontRouter
from proxy.front.trunk import FrontExpress, Trunk
from proxy.lane import LaneLoss
from proxy.link import Link
from proxy.local import Local
from proxy.session import LAST, Command, Mode, Session
from resp.catalog import Catalog
from resp.encode import encode, error

if TYPE_CHECKING:
    from proxy.hub import Hub

log = logging.getLogger("crossfade")

BUFFER_BYTES = 1024 * 1024  # of the trunk's sockets: the owner reads when it has time
DOWN = "the owner is not connected"
FULL = "the owner does not take what it is sent"


class FrontClient(Session):
    """A guest of this front."""

    __slots__ = ()

    def detach(self) -> tuple[socket.socket, bytes]:
        """Its socket, and what has not been sent on it. The session is over."""
        unsent = bytes(self._unsent) + b"".join(self.out)
        self.mode = Mode.CLOSED
        self.hub.floor.remove(self)
        self.out.clear()
        self.hub.left(self)
        return self.sock, unsent


class Reserve:
    """Descriptors that are kept for a new trunk, which takes two until the owner has its end: a front that may open no
    more files, as each of its guests costs one, would otherwise end with the trunk."""

    COUNT = 2

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor  # any that is open
        self._kept: list[int] = []
        self.fill()

    def __repr__(self) -> str:
        return f"<Reserve of {len(self._kept)}>"

    def fill(self) -> None:
        """As far as there are any."""
        with suppress(OSError):
            while len(self._kept) < self.COUNT:
                self._kept.append(os.dup(self._descriptor))

    def give(self) -> None:
        """They are free for whoever opens something now."""
        while self._kept:
            os.close(self._kept.pop())


class FrontHub:
    """All of one front."""

    read_only = ""

    def __init__(self, channel: socket.socket) -> None:
        self.clock = time.monotonic
        self.floor = platform_floor(self.flush)
        self.sessions: dict[int, Session] = {}
        self.relays: dict[Relay, None] = {}
        self.touched: list[Session] = []
        self.changed: dict[int, Session] = {}  # whose name, db, protocol... the owner has to be told
        self.commands = 0
        self.moved = 0  # bytes that may weigh, since the guests were last weighed
        self._moving: list[tuple[FrontClient, Command]] = []  # to a connection of their own, at the next flush
        self._pauses = {DOWN}
        self.paused = True
        self._db = 0  # that clients begin in
        self._dbs: set[int] = set()  # that the serving side is known to have
        self.lane = Trunk(self._lost, self._full)
        self.express = FrontExpress(self)
        # Of its hub, Local asks only in answers that a front does not give (router.py names those that it gives).
        self.local = Local(cast("Hub", self))
        self.router = FrontRouter(self, Catalog.default(), self.local)
        self._channel = Channel(channel, self.floor, self._heard, self._owner_gone)
        self._reserve = Reserve(channel.fileno())
        self._loss: LaneLoss | None = None
        self._lost_event = trio.Event()

    def __repr__(self) -> str:
        return f"<FrontHub guests={len(self.sessions)} relays={len(self.relays)} {self.lane!r}>"

    # -- the owner -----------------------------------------------------------------------------------------------

    def _owner_gone(self) -> None:
        """Without it there is nothing to serve: clients are disconnected, as by a server that is killed."""
        os._exit(0)

    def _heard(self, message: Message, sock: socket.socket | None) -> None:
        match message["is"]:
            case "greeting":
                self._greeted(message)
            case "client" if sock is not None:
                self._client(message, sock)
            case "client":
                self._channel.send({"is": "left", "id": message["id"]})
            case "kill":
                session = self.sessions.get(message["id"])
                if session is not None:
                    session.close()
            case "no-db":
                for session in list(self.sessions.values()):
                    if session.db == message["db"]:
                        session.close()

    def _greeted(self, facts: Message) -> None:
        self._db, self._dbs = facts["db"], {facts["db"], *facts["dbs"]}
        local = self.local
        user, password = octets(facts["credentials"])
        local.credentials = (user, password)
        local.hello, local.commands = octets(facts["hello"]), frozenset(octets(facts["commands"]))
        product, major, minor = facts["version"]
        local.version = (product, major, minor)
        self.router.share(frozenset(octets(facts["shared"])))
        if self.lane.link is not None:
            self.lane.link.dbs = set(self._dbs)
        elif self._loss is None:
            self.open_trunk()

    def open_trunk(self) -> None:
        """Connect to the owner, and send again what a lost connection has not answered. Errors: OSError, when there are
        too many open files."""
        self._reserve.give()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._channel.send({"is": "trunk"}, theirs)
        self._reserve.fill()
        link = Link(Wire(ours), self.floor, self.lane, db=self._db)
        link.dbs = self._dbs | {session.db for session in self.sessions.values()}
        self.lane.attach(link)
        loss, self._loss = self._loss, None
        if loss is not None:
            self.lane.replay(loss.reads)
        self._resume(DOWN)

    def _lost(self, loss: LaneLoss) -> None:
        """The owner closed the trunk, as a server does with a client: because of a write whose outcome is unknown."""
        self._reserve.fill()  # with the descriptor of the trunk, before a new client takes it
        self._pause(DOWN)
        self._resume(FULL)
        self._loss = loss
        self._lost_event.set()
        self._lost_event = trio.Event()
        for session in loss.doomed:
            session.close()
        log.warning("the connection to the owner was lost: %r, %d clients disconnected", loss, len(loss.doomed))

    async def until_lost(self) -> None:
        """Until the trunk is lost."""
        while self._loss is None:
            await self._lost_event.wait()

    # -- what a session asks of its hub --------------------------------------------------------------------------

    def _client(self, facts: Message, sock: socket.socket) -> None:
        sock.setblocking(False)
        hub = cast("Hub", self)  # a session asks nothing of it that is not here
        session = FrontClient(hub, sock, facts["address"], facts["id"], authenticated=self.local.open, db=self._db)
        session.local_address = facts["local_address"]
        self.sessions[session.id] = session
        self.floor.add(session)
        self._channel.send({"is": "taken", "id": session.id})

    def left(self, session: Session) -> None:
        """A guest is gone, or has a connection of its own now (then the owner knows)."""
        if self.sessions.pop(session.id, None) is not None:
            self._channel.send({"is": "left", "id": session.id})

    @property
    def held_bytes(self) -> int:
        """Each guest's part of what may wait."""
        return part_of_each(len(self.sessions))

    def weigh(self) -> None:
        """Disconnect the heaviest guests if all of them are too heavy."""
        self.moved = 0
        shed(self.sessions.values())

    def _full(self, full: bool) -> None:
        if full:
            self._pause(FULL)
        else:
            self._resume(FULL)

    def _pause(self, why: str) -> None:
        self._pauses.add(why)
        self.paused = True

    def _resume(self, why: str) -> None:
        self._pauses.discard(why)
        if self._pauses:
            return
        self.paused = False
        for session in list(self.sessions.values()):
            session.resume_or_break()

    # -- flush ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send everything that has gathered since the last flush."""
        while True:
            self.lane.flush()
            touched = self.touched
            if not touched:
                break
            self.touched = []
            settle(touched)
        if self._moving:
            moving, self._moving = self._moving, []
            for client, args in moving:
                if client.mode is Mode.OPENING:
                    self._relay(client, args)
        if self.changed:
            changed, self.changed = self.changed, {}
            for session in changed.values():
                if session.open:
                    self._channel.send({"is": "about", **state_of(session)})

    # -- a connection of its own ---------------------------------------------------------------------------------

    def move(self, session: Session, args: Command) -> None:
        """The client, which is owed nothing, sent a command that cannot share the trunk. From here on its bytes go to
        the owner as they come."""
        assert isinstance(session, FrontClient)
        session.mode = Mode.OPENING
        self._moving.append((session, args))

    def _relay(self, client: FrontClient, args: Command) -> None:
        state = state_of(client)
        commands, problem = [args, *client.backlog], client.parser.error
        last = commands[-1] is LAST
        if last:
            commands.pop()
        payload = b"".join(map(encode, commands)) + (b"" if problem else client.parser.unread())
        try:
            ours, theirs = socket.socketpair()
        except OSError as reason:  # too many open files
            log.warning("a client cannot have a connection of its own: %s", reason)
            client.leave(error("ERR max number of clients reached"))
            client.flush()
            return
        ours.setblocking(False)
        self.sessions.pop(client.id)  # the owner learns it with the socket
        self._channel.send({"is": "client", **state}, theirs)
        sock, unsent = client.detach()
        relay = Relay(client.id, sock, ours, self.floor, self._relay_closed)
        self.relays[relay] = None
        if unsent:
            relay.client.send(unsent)
        relay.owner.send(payload)
        if last:
            relay.hang_up(b"" if problem is None else error("ERR " + problem.text))

    def _relay_closed(self, relay: Relay) -> None:
        self.relays.pop(relay, None)
        self._channel.send({"is": "left", "id": relay.number})


def octets(value: Any) -> Any:
    """What `fronts.plain` made of bytes, as bytes again."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, dict):
        return {octets(name): octets(item) for name, item in value.items()}
    return list(map(octets, value)) if isinstance(value, list) else value
