"""One of the two servers, seen from the slow floor: its control connection, its clock, what it can do.

Owns reconnecting (with back-off) and the control connection, apart from lane and mirror queue, so that a busy or paused
server is seen. Makes the links that the fast floor uses, and fences those that were lost (invariant 13). Knows no role.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from backfill.client import Client, ConnectionLost, ReplyError, command_names
from backfill.commandstats import commands_used
from backfill.dial import connect
from backfill.errors import BackfillError, ConnectError, ScanError
from backfill.scan import databases
from backfill.url import Url
from backfill.wire import Wire
from proxy.floor import Floor
from proxy.link import Link, Owner, Scanner
from proxy.roles import Facts, Name
from resp.catalog import Catalog

log = logging.getLogger("crossfade")

POLL_SECONDS = 1.0  # PING and TIME on the control connection
SIZE_POLLS = 5  # every so many polls the keys are counted
REPLY_SECONDS = 5.0  # without an answer for so long the control connection is given up
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
FIRST_SAMPLES = 8  # of the clock, at once after connecting
PROBED_DBS = 16  # Redis' default number of dbs


class Side:
    """The source or the target."""

    def __init__(self, name: Name, url: Url, facts: Facts, instance: str) -> None:
        self.name = name
        self.url = url
        self.facts = facts
        self.catalog = Catalog.default()
        self.hello: dict[Any, Any] = {}
        self.problem = "not connected yet"  # empty while the control connection works
        self.since = time.time()
        self.size = 0  # keys, as last seen
        self.on_restart: Callable[[int, int], None] = lambda before, now: None  # keys before, keys now
        self.unfenced = False  # CLIENT KILL is refused: what a lost connection still carries may run later
        self.used: dict[bytes, int] = {}  # commands that it has carried out (see backfill/commandstats.py)
        self._instance = instance
        self._control: Client | None = None
        self._up = trio.Event()
        self._fenced = False

    def __repr__(self) -> str:
        return f"<Side {self.name.value} {self.url} {self.problem or 'up'}>"

    @property
    def control(self) -> Client:
        """The control connection. Errors: ConnectionLost when there is none."""
        if self._control is None:
            raise ConnectionLost(f"{self.name.value} {self.url.address}: {self.problem}")
        return self._control

    async def wait_up(self) -> None:
        """Until the control connection works."""
        while self._control is None:
            await self._up.wait()

    def retire(self, why: str) -> None:
        """Nobody keeps a connection to it any more. Should somebody again, what the old ones left is fenced first."""
        self.problem, self.since = why, time.time()
        self._fenced = False

    # -- control connection --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect once and learn what the server is; for the start, where a failure is told at once.
        Errors: ConnectError."""
        async with Client.open(self.url, name=self.title("start"), reply_timeout=REPLY_SECONDS) as control:
            try:
                await self._learn(control)
            except (ConnectionLost, ScanError) as problem:
                raise ConnectError("protocol", problem.text) from None

    async def run(self) -> None:
        """Keep the control connection, for ever."""
        failures = 0
        while True:
            try:
                async with Client.open(self.url, name=self.title("control"), reply_timeout=REPLY_SECONDS) as control:
                    await self._learn(control)
                    await self._fence_former(control)
                    failures = 0
                    self._set_up(control)
                    await self._watch(control)
            except BackfillError as problem:
                self._set_down(problem.text)
            finally:
                self._control = None
            await trio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            failures += 1

    def _set_up(self, control: Client) -> None:
        if self.problem:
            log.info("%s %s: connected", self.name.value, self.url.address)
        self.problem, self.since = "", time.time()
        self._control = control
        self._up.set()
        self._up = trio.Event()

    def _set_down(self, problem: str) -> None:
        if not self.problem or self.problem == "not connected yet":
            log.warning("%s %s: %s", self.name.value, self.url.address, problem)
            self.since = time.time()
        self.problem = problem

    async def _learn(self, control: Client) -> None:
        reply = await control.call(b"COMMAND")
        if isinstance(reply, list):
            self.facts.commands = command_names(reply)
            self.catalog = Catalog.from_command_reply(reply)
        server = control.wire.server
        product = "valkey" if "valkey_version" in server else "redis"
        version = server.get("valkey_version") or server.get("redis_version", "0.0.0")
        major, minor, *_ = [*(int(part) for part in version.split(".")[:2] if part.isdigit()), 0, 0]
        self.facts.version = (product, major, minor)
        await self._note_process(control, server.get("run_id", ""))
        hello, _ = await control.pipeline([[b"HELLO", b"3"], [b"HELLO", b"2"]])
        if isinstance(hello, dict):
            self.hello = hello
        await self._ask_limit(control)
        for _ in range(FIRST_SAMPLES):
            await self._measure(control)

    async def _ask_limit(self, control: Client) -> None:
        """Services without CONFIG do not tell; then a value that is too long shows when the connection is lost."""
        reply = await control.call(b"CONFIG", b"GET", b"proto-max-bulk-len")
        if isinstance(reply, list) and len(reply) == 2 and reply[1].isdigit():
            self.facts.max_bulk = int(reply[1])

    async def ask_limit(self) -> None:
        """What this server takes may be what cost a connection."""
        with suppress(ConnectionLost):
            await self._ask_limit(self.control)

    async def _ask_used(self, control: Client) -> None:
        self.used = commands_used(await control.call(b"INFO", b"commandstats"))

    async def ask_used(self) -> None:
        """What it has carried out by now."""
        with suppress(ConnectionLost):
            await self._ask_used(self.control)

    async def _note_process(self, control: Client, run_id: str) -> None:
        former, self.facts.run_id = self.facts.run_id, run_id
        before, self.size = self.size, sum((await databases(control)).values())
        if former and run_id != former:
            self.on_restart(before, self.size)

    async def _watch(self, control: Client) -> None:
        polls = 0
        while True:
            await trio.sleep(POLL_SECONDS)
            await self._measure(control)
            polls += 1
            if polls % SIZE_POLLS == 0:
                self.size = sum((await databases(control)).values())
                await self._ask_limit(control)
                await self._ask_used(control)

    async def _measure(self, control: Client) -> None:
        sent = time.time() * 1000
        reply = await control.call(b"TIME")
        received = time.time() * 1000
        if isinstance(reply, list):
            self.facts.clock.measured(sent, int(reply[0]) * 1000 + int(reply[1]) / 1000, received)

    # -- links ---------------------------------------------------------------------------------------------------

    def title(self, kind: str) -> str:
        """The name of a connection of that kind: by the names' beginning, what a former proxy left is found."""
        return f"crossfade-{self._instance}-{kind}"

    async def link(
        self, kind: str, floor: Floor, owner: Owner, *, resp: int = 2, scanner: Scanner | None = None
    ) -> Link:
        """A connection for the fast floor. Errors: ConnectError."""
        wire = await connect(self.url, name=self.title(kind), resp=resp)
        return Link(wire, floor, owner, db=self.url.db, resp=resp, scanner=scanner)

    async def probe_dbs(self, wanted: set[int]) -> set[int]:
        """Which of the first dbs, and of the wanted ones, this server accepts. Errors: ConnectError, ConnectionLost."""
        dbs = sorted(wanted.union(range(PROBED_DBS)))
        async with Client.open(self.url, name=self.title("probe"), reply_timeout=REPLY_SECONDS) as client:
            replies = await client.pipeline([[b"SELECT", b"%d" % db] for db in dbs])
        return {db for db, reply in zip(dbs, replies, strict=True) if not isinstance(reply, ReplyError)}

    async def sizes(self) -> dict[int, int]:
        """The dbs that have keys, and how many. Errors: ConnectError, ConnectionLost, ScanError."""
        async with Client.open(self.url, name=self.title("probe"), reply_timeout=REPLY_SECONDS) as client:
            return await databases(client)

    async def fence(self, wire: Wire) -> None:
        """Make sure that nothing sent on a lost connection runs later. Returns when the server has said so."""
        await self.fence_id(wire.client_id, wire.server.get("run_id", ""))

    async def fence_id(self, client_id: int, process: str) -> None:
        """The same for a connection that the server's process with this `run_id` has numbered so; 0: it has not."""
        while client_id:
            await self.wait_up()
            if process and process != self.facts.run_id:
                return  # it ended with its process; ids are given anew since
            try:
                reply = await self.control.call(b"CLIENT", b"KILL", b"ID", b"%d" % client_id)
            except ConnectionLost:
                await trio.sleep(POLL_SECONDS)
                continue
            self.unfenced = isinstance(reply, ReplyError) and not str(reply).startswith("ERR No such client")
            if self.unfenced:
                log.warning(
                    "%s: CLIENT KILL is refused (%s): lost connections cannot be fenced", self.name.value, reply
                )
            return

    async def holds_nothing_of(self, wire: Wire) -> bool:
        """Whether the server answers, and neither runs nor delays a command of this connection: then what was sent on
        it, or what was answered, has been lost on the way."""
        try:
            reply = await self.control.call(b"CLIENT", b"LIST")
        except ConnectionLost:
            return False
        if not isinstance(reply, bytes) or not wire.client_id:
            return False
        start = b"id=%d " % wire.client_id
        line = next((line for line in reply.splitlines() if line.startswith(start)), None)
        if line is None:
            return True
        fields = dict(part.partition(b"=")[::2] for part in line.split())
        return fields.get(b"qbuf") == b"0" and b"b" not in fields.get(b"flags", b"")

    async def _fence_former(self, control: Client) -> None:
        """Kill what a former proxy on the same state directory left behind, once, at the first connect."""
        if self._fenced:
            return
        self._fenced = True
        reply = await control.call(b"CLIENT", b"LIST")
        if not isinstance(reply, bytes):
            log.warning("%s: CLIENT LIST is refused: connections of a former proxy cannot be fenced", self.name.value)
            return
        own = b"id=%d " % control.wire.client_id
        name = b" name=" + self.title("").encode()
        for line in reply.splitlines():
            if name in line and not line.startswith(own):
                await control.call(b"CLIENT", b"KILL", b"ID", line.split(b" ", 1)[0].removeprefix(b"id="))
