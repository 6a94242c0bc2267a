"""The proxy's side of the ferry: its process, when it may cross, and what is copied again.

Owns the process, the log of what happens meanwhile, and the end of both: a ferry that is lost is fenced before the keys
of its open crossings are marked. The pace is the backfill's (`Courtesy`, rate and bandwidth): a crossing waits for its
leave. What the two say to each other is in `words.py`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import trio

import proxy
from backfill.direct.selection import Selection
from backfill.errors import BackfillError, ConnectionLost
from proxy.ferry.crossings import Crossing, Crossings
from proxy.ferry.words import keys_of
from proxy.front.channel import Channel, Message
from proxy.progress import Pages, Position, Progress

if TYPE_CHECKING:
    from proxy.hub import Hub
    from proxy.server import Proxy


COMMAND = (sys.executable, "-P", "-m", "proxy.ferry")  # -P: nothing is imported from wherever the proxy was started
TICK_SECONDS = 0.01
LOOK_SECONDS = 0.003  # how often it is looked whether a tick has settled, or a crossing may begin
LOG_SECONDS = 0.25  # how often its log is measured
LOOK_AT_END_SECONDS = 0.05  # how often it is looked whether a new backfill is due
END_SECONDS = 2.0  # for the process to end by itself
MAX_PENDING = 2000  # keys left to the lane and not copied yet: no crossing begins meanwhile
LOG_BYTES = 16 * 1024 * 1024  # of what happens while a crossing is open: beyond it the ferry is given up, which costs
# some thousand copies; to look into so much would hold up clients for half a second
AGAIN = "written while another process copied it"
LEFT = "left to the lane"

Leave = Callable[[int, int], Awaitable[None]]


class FerryLost(BackfillError):
    """It cannot go on; the lane can. `text` says why."""


class Ferrying:
    """One ferry, from its start to its end."""

    def __init__(
        self, owner: Proxy, pages: Pages, progress: Progress, *, leave: Leave, in_vain: Callable[[], bool]
    ) -> None:
        self._owner = owner
        self._hub = owner.hub
        self._serving, self._mirror = owner.serving, owner.mirror  # also when a flip has changed the roles
        self._pages = pages
        self._progress = progress
        self._leave = leave  # waited for before so many keys of so many bytes
        self._in_vain = in_vain  # whether what has been scanned says nothing any more
        self._crossings = Crossings(owner.hub.repair.keys)
        self._channel: Channel | None = None
        self._to_open, self._opening = trio.open_memory_channel[Message](64)
        self._ended = trio.Event()
        self._problem: BackfillError | None = None
        self._fence: tuple[int, str] = 0, ""  # the id of its connection to the mirror side, and of the process there

    def __repr__(self) -> str:
        return f"<Ferrying {self._crossings!r} {self._problem or ''}>"

    async def run(self, selection: Selection, start: Position, dbs: list[int]) -> None:
        """Copy every key of these dbs that is meant, from `start` on. When it returns, each was copied, or is marked.
        Errors: ConnectionLost (a server was lost), FerryLost."""
        try:
            async with trio.open_nursery() as nursery:
                self._listen()
                await self._all_settled()
                nursery.start_soon(self._keep_log)
                nursery.start_soon(self._bound_log)
                await self._travel(nursery, selection, start, dbs)
                nursery.cancel_scope.cancel()
        finally:
            self._do_not_listen()  # the mirror side may be away for hours: what happens until then is not kept
            await self._give_up_crossings()
        if self._problem is not None:
            raise self._problem

    def give_up(self, why: str) -> None:
        """End it now, as if it were lost."""
        self._end(FerryLost(why))

    async def _travel(self, nursery: trio.Nursery, selection: Selection, start: Position, dbs: list[int]) -> None:
        """Until it has ended, or what it copies says nothing any more."""
        try:
            process = await self._start(selection, start, dbs)
        except OSError as problem:
            self._end(FerryLost(f"its process cannot be started: {problem.strerror}"))
            return
        try:
            nursery.start_soon(self._see_end, process)
            nursery.start_soon(self._open_all)
            while not self._ended.is_set() and not self._in_vain():
                with trio.move_on_after(LOOK_AT_END_SECONDS):
                    await self._ended.wait()
            self._end(None)
        finally:
            await self._stop(process)

    # -- the log -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Everything goes into the tick that is now."""
        tick = self._crossings.now
        self._owner.journal.tap, self._hub.repair.keys.cleaned = tick.written, tick.cleaned

    def _do_not_listen(self) -> None:
        self._owner.journal.tap = self._hub.repair.keys.cleaned = None

    async def _keep_log(self) -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            number = self._crossings.turn()
            self._listen()
            await self._all_settled()
            self._crossings.settled(number)

    async def _bound_log(self) -> None:
        """Also while nothing settles, as the mirror side hangs."""
        while True:
            await trio.sleep(LOG_SECONDS)
            if self._crossings.size > LOG_BYTES:
                self.give_up("too much was written while its keys were under way")

    async def _all_settled(self) -> None:
        """Until everything that was sent by now is answered by the serving side, and its effects by the mirror side.
        Looked at now and then: a condition of the hub would make it send every effect at once."""
        hub = self._hub
        for order in (hub.lane, hub.mirror):
            asked = order.asked
            while order.answered < asked:
                await trio.sleep(LOOK_SECONDS)

    # -- the process ---------------------------------------------------------------------------------------------

    async def _start(self, selection: Selection, start: Position, dbs: list[int]) -> trio.Process:
        ours, theirs = socket.socketpair()
        paths = [os.fspath(Path(proxy.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        try:
            with theirs:
                process = await trio.lowlevel.open_process(COMMAND, stdin=theirs, stdout=subprocess.DEVNULL, env=env)
        except BaseException:
            ours.close()
            raise
        self._channel = Channel(ours, self._owner.floor, lambda message, sock: self._heard(message), self._hung_up)
        self._channel.send(
            {
                "is": "journey",
                "serving": asdict(self._serving.url.with_db(0)),
                "mirror": asdict(self._mirror.url.with_db(0)),
                "name": self._serving.title("ferry"),
                "absolute": b"PEXPIRETIME" in self._serving.facts.commands,
                "journal": os.fspath(self._owner.journal.directory),
                "selection": selection.describe(),
                "start": asdict(start),
                "dbs": [db for db in dbs if db not in start.done],
            }
        )
        return process

    async def _see_end(self, process: trio.Process) -> None:
        code = await process.wait()
        self._end(FerryLost(f"its process ended with {code}"))

    def _hung_up(self) -> None:
        """Its process ends, or has ended, which tells more."""

    def _end(self, problem: BackfillError | None) -> None:
        """The first end is the end."""
        if not self._ended.is_set():
            self._problem = problem
            self._ended.set()

    async def _stop(self, process: trio.Process) -> None:
        if self._channel is not None:
            self._channel.close()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(END_SECONDS if not self._crossings.open else 0):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _give_up_crossings(self) -> None:
        """What it has under way may still be carried out: not before that is over are the keys read again."""
        if self._crossings.open:
            await self._mirror.fence_id(*self._fence)
            for number in list(self._crossings.open):
                crossing = self._crossings.open.pop(number)
                self._again(crossing, crossing.keys)
            self._hub.flush()
        self._owner.journal.forget_crossings()  # also those that it has not had leave for

    # -- what it tells -------------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        match message["is"]:
            case "connected":
                self._connected(message)
            case "open":
                self._to_open.send_nowait(message)  # it asks for few at once
            case "close":
                self._close(message)
            case "done":
                self._end(None)
            case "lost":
                # Where it cannot connect, although we have, it would not the next time.
                self._end((ConnectionLost if self._fence[0] else FerryLost)(message["text"]))
            case "failed":
                self._end(FerryLost(message["text"]))

    def _connected(self, message: Message) -> None:
        self._fence = message["client_id"], message["mirror"]
        if not self._fence[0]:
            self.give_up("the mirror side does not tell the number of a connection, so it could not be fenced")
        for side, run_id in ((self._serving, message["serving"]), (self._mirror, message["mirror"])):
            if run_id and side.facts.run_id and run_id != side.facts.run_id:  # several behind one name, or a failover
                self.give_up(f"it has reached another server than the proxy as {side.url.address}")

    async def _open_all(self) -> None:
        """Crossings, and what is left to the lane, in the order of the scan."""
        async for message in self._opening:
            db, keys = message["db"], keys_of(message["keys"])
            left = dict(zip(keys_of(message["left"]), message["left_sizes"], strict=True))
            await self._leave(len(keys) + len(left), message["size"])
            while not self._may_cross(self._hub):
                await trio.sleep(LOOK_SECONDS)
            end = message["end"]
            self._progress.scanned += len(keys) + len(left)
            page = self._pages.open(Position(end["db"], end["cursor"], tuple(end["done"]), self._progress.scanned))
            self._want(page, db, left)
            self._open(message["number"], db, keys, page)

    def _may_cross(self, hub: Hub) -> bool:
        return (
            not hub.paused  # a flip, a stop, a serving side that is behind
            and len(self._pages) < MAX_PENDING
            and hub.lane.link is not None
            and hub.mirror.link is not None
        )

    def _open(self, number: int, db: int, keys: list[bytes], page: int) -> None:
        if self._channel is None or self._ended.is_set() or self._in_vain():
            return  # the page stays open: it is scanned again
        self._crossings.begin(number, db, keys, page)
        self._hub.beside += 1
        self._channel.send({"is": "go", "number": number, "shift": self._owner.roles.shift_ms})

    def _want(self, page: int, db: int, sizes: dict[bytes, int]) -> None:
        """Keys of a page that the lane copies."""
        repair = self._hub.repair
        for key, size in sizes.items():
            place = (db, key)
            self._pages.add(page, place)
            repair.expect(place, size)
            repair.want(place, LEFT)

    def _close(self, message: Message) -> None:
        """Every key is written there, and acknowledged, but for some that it leaves to the lane."""
        crossing, touched = self._crossings.end(message["number"])
        again = touched.union(keys_of(message["left"]))
        fine = len(crossing.keys) - len(again)
        self._progress.copied += fine
        self._progress.aside += fine
        self._again(crossing, again)

    def _again(self, crossing: Crossing, keys: Iterable[bytes]) -> None:
        """These keys are copied in the lane, behind whatever was done to them. The journal has them before the file
        of the crossing goes. The ferry removes that: a file system that is syncing makes whoever does so wait."""
        journal, repair = self._owner.journal, self._hub.repair
        for key in keys:
            place = crossing.db, key
            self._pages.add(crossing.page, place)
            journal.note_one(*place)
            repair.mark_unordered(place, AGAIN, lag=True)
        journal.commit()
        if self._channel is not None:
            self._channel.send({"is": "closed", "number": crossing.number})
        self._hub.beside -= 1
        self._pages.close(crossing.page)
