"""One client of the traffic: a connection that is made again when lost, and the moves it draws.

A move is one thing an application does: a command, a pipeline, a transaction, a script, or something whose
right answer is known (`checked_*`), so that a lost write or a reply that went to another client is seen at once.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

import hiredis
import trio

from tests.traffic.connection import Broken, Command, Connection
from tests.traffic.ledger import Ledger
from tests.traffic.templates import SCRIPTS, Filler, Template

RECONNECT_S = 0.05
_WAITING = re.compile(rb"^B(LPOP|RPOP|LMOVE|RPOPLPUSH|ZPOPMIN|ZPOPMAX|LMPOP|ZMPOP)$")
_STREAM_ID = re.compile(rb"\d{1,15}-\d{1,10}")

Templates = Mapping[str, tuple[int, Sequence[Template]]]  # group -> (weight, commands)


class Refused(Exception):
    """An error reply where none may come; it has been counted."""


class Client:
    def __init__(self, index: int, url: str, filler: Filler, ledger: Ledger, templates: Templates) -> None:
        self.name = f"client {index}"
        self.filler = filler
        self.rng: Random = filler.rng
        self._url = url
        self._resp = 3 if index % 2 else 2
        self._ledger = ledger
        self._templates = templates
        self._connection: Connection | None = None
        self._prefix = f"{filler.prefix}chk:"
        self._own = f"{self._prefix}own:{index}"
        self._serial = 0
        self._known: dict[tuple[int, str], Any] = {}  # (db, key) of our own -> what it must hold

    async def step(self, move: Callable[[Client], Awaitable[None]]) -> None:
        """One move. A lost connection is counted, and the next step makes a new one."""
        try:
            if self._connection is None:
                await self._connect()
            await move(self)
        except Refused:
            self._known.clear()
        except Broken as error:
            self._ledger.lost(self.name, str(error))
            self._known.clear()
            await self.close()
            await trio.sleep(RECONNECT_S)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await connection.close()

    async def _connect(self) -> None:
        self._connection = await Connection.open(self._url)
        greeting: list[Command] = [["CLIENT", "SETNAME", self.name.replace(" ", "-")], ["SELECT", self.filler.db]]
        if self._resp == 3:
            greeting.insert(0, ["HELLO", "3"])
        await self.must(*greeting)

    async def exchange(self, commands: Sequence[Command], *, cut_at: int | None = None) -> list[Any]:
        """Sends, counts, judges, remembers stream ids."""
        assert self._connection is not None
        started = time.monotonic()
        replies = await self._connection.exchange(commands, cut_at=cut_at)
        if not any(_may_wait(command) for command in commands):
            self._ledger.longest_ms = max(self._ledger.longest_ms, (time.monotonic() - started) * 1000)
        for command, reply in zip(commands, replies, strict=True):
            name = str(command[0], "ascii") if isinstance(command[0], bytes) else str(command[0])
            self._ledger.names[name] += 1
            self._ledger.judge(self.name, command, reply)
            if name.startswith("X"):
                self.filler.ids.extend(_ids_in(reply))
        return replies

    async def call(self, *command: Any) -> Any:
        return (await self.exchange([command]))[0]

    async def must(self, *commands: Command) -> list[Any]:
        """Replies of commands that never fail on a sound server; an error (a finding by now) ends the move."""
        replies = await self.exchange(commands)
        if any(isinstance(reply, hiredis.ReplyError) for reply in replies):
            raise Refused
        return replies

    def draw(self, *, without: str = "") -> list[bytes]:
        """A random command, filled."""
        groups = [group for group in self._templates if group != without] or list(self._templates)
        (group,) = self.rng.choices(groups, [self._templates[group][0] for group in groups])
        return self.draw_from(group)

    def draw_from(self, group: str) -> list[bytes]:
        return self.filler.fill(self.rng.choice(self._templates[group][1]))

    def token(self) -> bytes:
        self._serial += 1
        return f"{self._own}:{self._serial}".encode()

    # Moves

    async def pipeline(self) -> None:
        commands = [self.draw(without="blocking") for _ in range(self.rng.randint(3, 20))]
        await self.exchange(commands, cut_at=self.rng.randint(1, 60) if self.rng.random() < 0.3 else None)

    async def transaction(self) -> None:
        body: Sequence[Command] = [self.draw() for _ in range(self.rng.randint(1, 6))]
        dice = self.rng.random()
        if dice < 0.1:
            await self.exchange(block(body, end="DISCARD"))
        elif dice < 0.3:
            for command in block(body):  # a client that sends them one by one
                await self.call(*command)
        elif dice < 0.35:
            there, back = ["SELECT", self.filler.other_db()], ["SELECT", self.filler.db]
            await self.exchange(block([there, *body, back]))
        elif dice < 0.4:
            await self._aborted_transaction(body)
        else:
            await self.exchange(block(body))

    async def _aborted_transaction(self, body: Sequence[Command]) -> None:
        assert self._connection is not None
        replies = await self._connection.exchange(block([*body, ["NOSUCHCOMMAND"]]))
        self._ledger.names["EXECABORT"] += 1
        self._ledger.check(self.name, "unknown command in MULTI", "EXECABORT", str(replies[-1]).split(" ")[0])

    async def script(self) -> None:
        body, families = self.rng.choice(SCRIPTS)
        keys = [self.filler.key(family) for family in families]
        tail = [len(keys), *keys, self.filler.short(), self.rng.randint(0, 99)]
        if self.rng.random() < 0.4:
            await self.call("EVAL", body, *tail)
            return
        digest = hashlib.sha1(body.encode()).hexdigest()
        if self.rng.random() < 0.3:
            await self.exchange([["SCRIPT", "LOAD", body], ["EVALSHA", digest, *tail]])
            return
        assert self._connection is not None
        (reply,) = await self._connection.exchange([["EVALSHA", digest, *tail]])
        if str(reply).startswith("NOSCRIPT"):
            self._ledger.names["NOSCRIPT"] += 1
            await self.call("EVAL", body, *tail)
        else:
            self._ledger.names["EVALSHA"] += 1
            self._ledger.judge(self.name, ["EVALSHA", body, *tail], reply)

    async def select(self) -> None:
        db = self.rng.choice(self.filler.dbs)
        await self.must(["SELECT", db])
        self.filler.db = db

    async def watch(self) -> None:
        """Optimistic locking on one key of all clients: no update may be lost."""
        key, db = f"{self._prefix}watched", self.filler.db
        await self.must(["WATCH", key])
        value = int((await self.must(["GET", key]))[0] or 0)
        if self.rng.random() < 0.1:
            await self.call("UNWATCH")
            return
        self._ledger.unsure["watched"] += 1
        *_, committed = await self.must(*block([["SET", key, value + 1], self.draw()]))
        self._ledger.unsure["watched"] -= 1
        self._ledger.watched[db] += committed is not None

    async def checked_echo(self) -> None:
        tokens = [self.token() for _ in range(self.rng.randint(1, 5))]
        replies = await self.must(*(["ECHO", token] for token in tokens))
        self._ledger.check(self.name, "ECHO", tokens, replies)

    async def checked_value(self) -> None:
        """What this client alone wrote, it must read."""
        place = self.filler.db, f"{self._own}:value"
        if place in self._known:
            self._ledger.check(self.name, f"GET {place}", [self._known[place]], await self.must(["GET", place[1]]))
        self._known.pop(place, None)
        token = self.token()
        await self.must(["SET", place[1], token])
        self._known[place] = token

    async def checked_counter(self) -> None:
        place = self.filler.db, f"{self._own}:counter"
        times = self.rng.randint(1, 4)
        before = self._known.pop(place, None)
        replies = await self.must(*[["INCR", place[1]]] * times)
        if before is not None:
            self._ledger.check(self.name, f"INCR {place}", [before + i + 1 for i in range(times)], replies)
        self._known[place] = replies[-1]

    async def checked_total(self) -> None:
        self._ledger.unsure["total"] += 1
        (reply,) = await self.must(["INCR", f"{self._prefix}total"])
        self._ledger.unsure["total"] -= 1
        self._ledger.total(self.name, self.filler.db, reply)

    async def checked_push(self) -> None:
        tokens = [self.token() for _ in range(self.rng.randint(1, 3))]
        self._ledger.sent.update(tokens)  # another client may have it before we have our reply
        await self.must(["RPUSH", f"{self._prefix}jobs", *tokens])
        self._ledger.pushed.update(tokens)

    async def checked_pop(self) -> None:
        key = f"{self._prefix}jobs"
        self._ledger.unsure["pop"] += 1
        if self.rng.random() < 0.7:
            (reply,) = await self.must(["BLPOP", key, f"{self.rng.uniform(0.01, 0.2):.2f}"])
            token = reply[1] if reply is not None else None
        else:
            (token,) = await self.must(["LPOP", key])
        self._ledger.unsure["pop"] -= 1
        if token is not None:
            self._ledger.pop(self.name, token)


def block(body: Sequence[Command], *, end: str = "EXEC") -> list[Command]:
    return [["MULTI"], *body, [end]]


def _may_wait(command: Command) -> bool:
    name = command[0].encode() if isinstance(command[0], str) else command[0]
    assert isinstance(name, bytes)
    return _WAITING.match(name) is not None or (name.startswith(b"XREAD") and b"BLOCK" in command)


def _ids_in(reply: Any) -> list[bytes]:
    if isinstance(reply, bytes):
        return [reply] if _STREAM_ID.fullmatch(reply) else []
    if isinstance(reply, dict):
        reply = list(reply.items())
    if isinstance(reply, (list, tuple)):
        return [found for element in reply for found in _ids_in(element)]
    return []


Move = Callable[[Client], Awaitable[None]]


def single(group: str) -> Move:
    async def move(client: Client) -> None:
        await client.call(*client.draw_from(group))

    return move


# Moves beside the single commands of each group: name -> (weight, moves to draw from).
MOVES: Mapping[str, tuple[int, tuple[Move, ...]]] = {
    "pipelines": (6, (Client.pipeline,)),
    "transactions": (8, (Client.transaction,)),
    "watch": (4, (Client.watch,)),
    "scripts": (6, (Client.script,)),
    "select": (2, (Client.select,)),
    "checked": (
        12,
        (
            Client.checked_echo,
            Client.checked_value,
            Client.checked_counter,
            Client.checked_total,
            Client.checked_push,
            Client.checked_pop,
        ),
    ),
}
