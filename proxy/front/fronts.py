"""The owner's fronts: their processes, who gets the next client, and what they tell.

Owns starting them, starting one again that ended (with back-off), and the guests. A front ends with the owner, also
with one that is killed: it sees the end of its channel.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import proxy
from proxy.front.channel import Channel, Message
from proxy.front.guests import Guest, TrunkSession, adopt
from proxy.session import Session
from resp.catalog import Route, Spec

if TYPE_CHECKING:
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

COMMAND = (sys.executable, "-P", "-m", "proxy.front")  # -P: nothing comes from wherever the proxy was started
BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)  # between the end of a front and its next start
SHARED = frozenset({Route.READ, Route.WRITE, Route.BLOCKING})  # what may go down a trunk
STEADY_SECONDS = 30.0  # a front that lived so long is started again at once
START_SECONDS = 10.0  # the proxy does not wait longer for its fronts: until they are there it serves itself
AT_ONCE = 8  # clients that a front may be given before it has taken one; with more it comes behind the others
MAX_OFFERED = 256  # with so many it gets none at all: it hangs
END_SECONDS = 2.0  # for a front to end by itself


class Front:
    """One front, over all its processes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.channel: Channel | None = None  # while its process runs
        self.up = trio.Event()  # its process has connected, or has ended
        self.pid = 0
        self.guests: dict[int, Guest] = {}
        self.offered: set[int] = set()  # guests that it has not said to have taken
        self.relayed: set[int] = set()  # clients that have a connection of their own, through it
        self.restarts = 0
        self.problem = "is being started"  # why it does not run

    def __repr__(self) -> str:
        return f"<Front {self.number} pid={self.pid} guests={len(self.guests)} {self.problem or 'up'}>"

    @property
    def ready(self) -> bool:
        """Whether it can be given a client."""
        return self.channel is not None and self.up.is_set() and len(self.offered) < MAX_OFFERED

    @property
    def load(self) -> tuple[int, int]:
        """The lower, the rather it is given a client: one that hangs comes last."""
        return len(self.offered) // AT_ONCE, self.clients

    @property
    def clients(self) -> int:
        """How many it talks to."""
        return len(self.guests) + len(self.relayed)

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "pid": self.pid,
            "clients": self.clients,
            "relayed": len(self.relayed),
            "restarts": self.restarts,
            "problem": self.problem,
        }


class Fronts:
    """All fronts of one owner."""

    def __init__(self, owner: Proxy, count: int) -> None:
        self._owner = owner
        self._fronts = [Front(number + 1) for number in range(count)]

    def __repr__(self) -> str:
        return f"<Fronts {self._fronts}>"

    def status(self) -> list[dict[str, Any]]:
        """One document for each."""
        return [front.to_json() for front in self._fronts]

    def problems(self) -> list[tuple[str, str]]:
        """For each that does not run: its number, and why."""
        return [
            (f"{front.number}", f"worker {front.number} {front.problem}") for front in self._fronts if front.problem
        ]

    def take(self, session: Session) -> bool:
        """Give a new client away; False: there is no front that can take it, the owner serves it."""
        ready = [front for front in self._fronts if front.ready]
        if not ready:
            return False
        front = min(ready, key=lambda front: front.load)
        hub, channel = self._owner.hub, front.channel
        assert channel is not None
        guest = Guest(hub, session.id, session.address, session.local_address, lambda number: _kill(front, number))
        guest.db = session.db
        front.guests[guest.id] = hub.guests[guest.id] = guest
        front.offered.add(guest.id)
        facts = {"id": guest.id, "address": guest.address, "local_address": guest.local_address}
        channel.send({"is": "client", **facts}, session.sock)
        return True

    def greet(self) -> None:
        """Another side serves, or writes have to wait: fronts answer and choose accordingly from now on."""
        for front in self._fronts:
            if front.channel is not None:
                front.channel.send(self._greeting())

    def _greeting(self) -> Message:
        """All that a front has to know. Passwords go no other way than over the channel."""
        owner, local = self._owner, self._owner.local
        writes_wait = owner.hub.screens_writes  # each writer is to be held on its own, not the trunk
        specs = owner.hub.router.catalog.specs.items()
        return {
            "is": "greeting",
            "credentials": plain(local.credentials),
            "db": owner.settings.source.db,
            "dbs": sorted(owner.hub.lane.link.dbs) if owner.hub.lane.link is not None else [],
            "hello": plain(local.hello),
            "version": local.version,
            "commands": plain(local.commands),
            "shared": plain([name for name, spec in specs if _shared(spec) and not (writes_wait and spec.writes)]),
        }

    # -- processes -----------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all of them running until cancelled. Started when each has connected, or has ended."""
        async with trio.open_nursery() as nursery:
            first = [front.up for front in self._fronts]
            for front in self._fronts:
                nursery.start_soon(self._keep, front)
            with trio.move_on_after(START_SECONDS):
                for up in first:
                    await up.wait()
            task_status.started()

    async def _keep(self, front: Front) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            process = await self._start(front)
            try:
                code = await process.wait()
            finally:
                self._close(front)
                await _see_end(process)
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            front.restarts += 1
            front.problem = f"ended with {code} at {time.strftime('%H:%M:%S')}; is started again"
            log.warning("worker %d %s", front.number, front.problem)
            await trio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1] if failures else 0)

    async def _start(self, front: Front) -> trio.Process:
        ours, theirs = socket.socketpair()
        paths = [os.fspath(Path(proxy.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        try:
            with theirs:
                process = await trio.lowlevel.open_process(
                    [*COMMAND, str(front.number)], stdin=theirs, stdout=subprocess.DEVNULL, env=env
                )
        except BaseException:
            ours.close()
            raise
        front.pid = process.pid
        front.channel = Channel(
            ours, self._owner.floor, lambda message, sock: self._heard(front, message, sock), lambda: self._close(front)
        )
        front.channel.send(self._greeting())
        return process

    def _close(self, front: Front) -> None:
        """Nothing more goes to this process, and its guests are gone."""
        if front.channel is not None:
            front.channel.close()
            front.channel = None
        front.up.set()
        front.up = trio.Event()
        front.pid = 0
        for number in front.guests:
            self._owner.hub.guests.pop(number, None)
        front.guests.clear()
        front.offered.clear()
        front.relayed.clear()

    # -- what fronts tell ----------------------------------------------------------------------------------------

    def _heard(self, front: Front, message: Message, sock: socket.socket | None) -> None:
        match message["is"]:
            case "trunk" if sock is not None:
                self._trunk(front, sock)
            case "client" if sock is not None:
                self._client(front, message, sock)
            case "taken":
                front.offered.discard(message["id"])
            case "about":
                guest = front.guests.get(message["id"])
                if guest is not None:
                    adopt(guest, message)
                    guest.last_at = self._owner.hub.clock()
            case "left":
                self._forget(front, message["id"])
                front.relayed.discard(message["id"])

    def _trunk(self, front: Front, sock: socket.socket) -> None:
        """A front's shared connection, made or made again."""

        def refuse_db(db: int) -> None:
            log.warning("worker %d: clients in db %d, which the serving side does not have", front.number, db)
            if front.channel is not None:
                front.channel.send({"is": "no-db", "db": db})

        owner = self._owner
        sock.setblocking(False)
        front.problem = ""
        front.up.set()
        owner.hub.joined(
            TrunkSession(
                owner.hub, sock, owner.next_number(), owner.settings.source.db, f"worker-{front.number}", refuse_db
            )
        )

    def _client(self, front: Front, state: Message, sock: socket.socket) -> None:
        """A guest is one no more: it has a connection of its own, and goes on from where it was."""
        hub = self._owner.hub
        guest = self._forget(front, state["id"])
        link = hub.lane.link
        if guest is None or guest.killed or (link is not None and state["db"] not in link.dbs):
            sock.close()
            return
        sock.setblocking(False)
        session = Session(hub, sock, guest.address, guest.id, authenticated=state["authenticated"], db=state["db"])
        session.local_address, session.connected_at = guest.local_address, guest.connected_at
        adopt(session, state)
        front.relayed.add(session.id)
        hub.joined(session)

    def _forget(self, front: Front, number: int) -> Guest | None:
        self._owner.hub.guests.pop(number, None)
        front.offered.discard(number)
        return front.guests.pop(number, None)


def _shared(spec: Spec) -> bool:
    return spec.known and spec.route in SHARED


def _kill(front: Front, number: int) -> None:
    if front.channel is not None:
        front.channel.send({"is": "kill", "id": number})


async def _see_end(process: trio.Process) -> None:
    """It ends by itself when its channel does; else it is killed."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(END_SECONDS):
            await process.wait()
            return
        process.kill()
        await process.wait()


def plain(value: Any) -> Any:
    """Bytes as text, one byte a character, on every level: for JSON."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {plain(name): plain(item) for name, item in value.items()}
    return list(map(plain, value)) if isinstance(value, (list, tuple, set, frozenset)) else value
