"""Owns writing whole keys onto a server for an import, many in one round trip; `big_keys` writes what comes in pieces.

A door. Every key appears whole or not at all, whenever the import is killed: it is written by one command or one
MULTI/EXEC. So the same command may be run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from backfill.client import Client, ReplyError, command_names
from backfill.compare import show
from backfill.errors import BackfillError
from backfill.rebuild import Command, losses, write_commands
from backfill.scan import select
from backfill.values import Hash, State

from .records import BadValue, Head, Piece, state_of


class Existing(Enum):
    """What becomes of a key that is there already."""

    FAIL = "fail"
    SKIP = "skip"
    REPLACE = "replace"


class Ttl(Enum):
    """What the ttls of a file mean. AUTO: from year 2001 on (in ms since 1970) an instant, below that what remains;
    RIOT has written both."""

    AUTO = "auto"
    ABSOLUTE = "absolute"
    RELATIVE = "relative"


FIRST_INSTANT_MS = 10**12  # September 2001; as a remaining time, 31 years


class Outcome(Enum):
    WRITTEN = "written"
    EXISTED = "existed"  # and was left alone, as it was asked for
    EXPIRED = "expired"  # its ttl has run out
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a record. `text`: why it failed, or what of it the target cannot hold."""

    head: Head
    outcome: Outcome
    text: str = ""


EXISTS = "the key {} exists on the target (--replace, or --skip-existing)"


class Target:
    """The server that is written to. One db at a time."""

    def __init__(self, client: Client, known: frozenset[bytes], version: tuple[str, int, int], now_ms: int) -> None:
        self.client = client
        self.known = known
        self._version = version
        self._now_ms = now_ms
        self._db = client.url.db

    @property
    def counters(self) -> bool:
        """Whether its streams have counters."""
        return self._version[1] >= 7

    @classmethod
    async def of(cls, client: Client) -> Target:
        """Asks the server what it knows. Errors: BackfillError."""
        names, time = await client.pipeline([[b"COMMAND"], [b"TIME"]])
        for reply in (names, time):
            if isinstance(reply, ReplyError):
                raise BackfillError(f"{client.url.address} refuses: {reply}")
        now = int(time[0]) * 1000 + int(time[1]) // 1000
        return cls(client, command_names(names), version_of(client), now)

    async def clock(self) -> None:
        """Look at the target's clock again: what a ttl means depends on it."""
        time = await self.client.call(b"TIME")
        if not isinstance(time, ReplyError):
            self._now_ms = int(time[0]) * 1000 + int(time[1]) // 1000

    async def enter(self, db: int) -> None:
        """Go on in this db. Errors: ScanError."""
        if db != self._db:
            await select(self.client, db)
            self._db = db

    def deadline(self, ttl: int | None, mode: Ttl) -> int | None:
        if ttl is None:
            return None
        remaining = mode is Ttl.RELATIVE or (mode is Ttl.AUTO and ttl < FIRST_INSTANT_MS)
        return self._now_ms + ttl if remaining else ttl

    def expired(self, deadline_ms: int | None) -> bool:
        return deadline_ms is not None and deadline_ms <= self._now_ms

    # -- small keys --

    async def write(self, batch: Sequence[Piece], existing: Existing, ttl: Ttl, *, stop: bool) -> list[Done]:
        """Write whole keys, all of this db and of different names. `stop`: nothing behind the first that fails."""
        done: list[Done] = []
        sent: list[tuple[Head, State, list[Command]]] = []
        there = await self._there(batch) if existing is not Existing.REPLACE else [False] * len(batch)
        for piece, exists in zip(batch, there, strict=True):
            found = self._prepare(piece, exists, existing, ttl)
            if isinstance(found, Done):
                done.append(found)
                if stop and found.outcome is Outcome.FAILED:
                    break
            else:
                sent.append((piece.head, *found))
        done += await self._send(sent)
        order = {id(piece.head): index for index, piece in enumerate(batch)}
        return sorted(done, key=lambda one: order[id(one.head)])

    async def _there(self, batch: Sequence[Piece]) -> list[bool]:
        replies = await self.client.pipeline([[b"EXISTS", piece.head.key] for piece in batch])
        return [reply == 1 for reply in replies]

    def _prepare(self, piece: Piece, exists: bool, existing: Existing, ttl: Ttl) -> Done | tuple[State, list[Command]]:
        head = piece.head
        if exists:
            return existed(head, existing)
        try:
            state = self._state(piece, ttl)
        except BadValue as problem:
            return Done(head, Outcome.FAILED, str(problem))
        gone = self.expired(state.deadline_ms) or (isinstance(state.value, Hash) and not state.value.fields)
        if gone and existing is not Existing.REPLACE:
            return Done(head, Outcome.EXPIRED)
        if gone:
            return replace(state, kind=b"none"), [[b"DEL", head.key]]
        commands = write_commands(state, shift_ms=0, target=self.known, version=self._version)
        if existing is not Existing.REPLACE and commands[0][0] == b"DEL":
            del commands[0]
        return state, commands

    def _state(self, piece: Piece, ttl: Ttl) -> State:
        state = replace(state_of(piece), deadline_ms=self.deadline(piece.head.ttl, ttl))
        if isinstance(state.value, Hash) and state.value.deadlines:
            deadlines = {name: self.deadline(until, ttl) for name, until in state.value.deadlines.items()}
            gone = {name for name, until in deadlines.items() if self.expired(until)}
            fields = {name: value for name, value in state.value.fields.items() if name not in gone}
            kept = {name: until for name, until in deadlines.items() if until is not None and name not in gone}
            state = replace(state, value=Hash(fields, kept))
        return state

    async def _send(self, sent: Sequence[tuple[Head, State, list[Command]]]) -> list[Done]:
        commands: list[Command] = []
        ends = []
        for _, _, own in sent:
            commands += own if len(own) == 1 else [[b"MULTI"], *own, [b"EXEC"]]
            ends.append(len(commands))
        replies = await self.client.pipeline(commands) if commands else []
        done = []
        half: list[bytes] = []
        start = 0
        for (head, state, own), end in zip(sent, ends, strict=True):
            reply = replies[end - 1]
            # Of a refused EXEC the cause stands before it, in the reply to the command that was not queued.
            error = first_error(replies[start:end] if len(own) == 1 or isinstance(reply, ReplyError) else reply)
            start = end
            if error is not None:
                done.append(Done(head, Outcome.FAILED, f"the target refused the key {show(head.key)}: {error}"))
                if not isinstance(reply, ReplyError):
                    half.append(head.key)
            elif state.missing:
                done.append(Done(head, Outcome.EXPIRED))
            else:
                lost = losses(state, target=self.known, version=self._version)
                done.append(Done(head, Outcome.WRITTEN, "; ".join(lost)))
        if half:  # commands before the one that failed did run
            await self.client.pipeline([[b"DEL", key] for key in half])
        return done


def first_error(replies: Iterable[Any]) -> ReplyError | None:
    return next((reply for reply in replies if isinstance(reply, ReplyError)), None)


def existed(head: Head, existing: Existing) -> Done:
    if existing is Existing.SKIP:
        return Done(head, Outcome.EXISTED)
    return Done(head, Outcome.FAILED, EXISTS.format(show(head.key)))


def version_of(client: Client) -> tuple[str, int, int]:
    """Product, major and minor version of the server, from what the handshake learned."""
    server = client.wire.server
    product = "valkey" if "valkey_version" in server else "redis"
    text = server.get("valkey_version") or server.get("redis_version") or "7.0"
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return product, int(major) if major.isdigit() else 7, int(minor) if minor.isdigit() else 0
