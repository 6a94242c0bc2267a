"""How the pinned sessions change sides in a flip: their connections to the side that is about to serve.

Owns, for one flip, an heir for each pinned connection. They are dialled before the pause. Within it, when nothing is in
flight any more, each is given its session's state (protocol, db, tracking, subscriptions, an open MULTI), and a PING
goes down the old connections. When all have answered, every message published so far has come out of the old side, and
every later one comes out of the new one: none is lost, none comes twice. Nothing has changed before that: a flip
that is given up closes the heirs, and the sessions go on where they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from backfill.errors import ConnectError
from proxy import faults
from proxy.carried import SUBSCRIBING, is_message
from proxy.link import Link
from proxy.pinned import Pinned
from resp.encode import encode
from resp.frames import is_error, is_push

if TYPE_CHECKING:
    from proxy.hub import Hub
    from proxy.session import Command

DIALS_AT_ONCE = 32  # a server's accept queue is short, and a handshake is some round trips
NAMED = 3  # sessions named in a reason


class Heir:
    """A connection that one pinned session is about to have."""

    def __init__(self, pin: Pinned, link: Link) -> None:
        self.link = link
        self.problem = ""  # why it cannot carry on what the session has
        self._pin = pin
        self._asked: list[Command] = []  # what is to be accepted, in the order of the replies
        self.awaited = 0
        link.owner = self

    def __repr__(self) -> str:
        return f"<Heir of {self._pin.session!r} awaited={self.awaited} {self.problem}>"

    def prepare(self, client_id: Callable[[int], int | None]) -> None:
        """Make the session's state here. A transaction's commands may be refused here: its EXEC tells."""
        state, transaction = self._pin.state(self.link, client_id)
        for args in [*state, [b"PING"]]:
            self._asked += [args] * self._replies(args)
        self.awaited = len(self._asked) + len(transaction)
        self._asked.reverse()
        self.link.send(b"".join(encode(args) for args in [*state, [b"PING"], *transaction]))

    def _replies(self, args: Command) -> int:
        """Subscriptions are confirmed by pushes in RESP3, and by a reply for each name in RESP2."""
        if args[0] not in SUBSCRIBING:
            return 1
        return 0 if self._pin.session.resp == 3 else len(args) - 1

    def on_frames(self, frames: list[bytes]) -> None:
        for frame in frames:
            if is_push(frame) or is_message(frame):
                continue
            self.awaited -= 1
            args = self._asked.pop() if self._asked else None
            if args is not None and is_error(frame):
                self.problem = f"{args[0].decode()}: {frame[1:-2].decode(errors='replace')}"

    def on_lost(self, link: Link, reason: str) -> None:
        self.problem, self.awaited = reason, 0

    def on_full(self, full: bool) -> None:
        """Bounded by what the session has."""


class Moving:
    """All heirs of one flip."""

    def __init__(self, hub: Hub, dial: Callable[[], Awaitable[Link]]) -> None:
        self._hub = hub
        self._dial = dial
        self._heirs: dict[Pinned, Heir] = {}
        self._failed: dict[Pinned, str] = {}

    def __repr__(self) -> str:
        return f"<Moving {len(self._heirs)} of {len(self._hub.pins)} failed={len(self._failed)}>"

    async def dial(self) -> None:
        """A connection for each pinned session that has none yet."""
        limiter = trio.CapacityLimiter(DIALS_AT_ONCE)

        async def dial_in_turn(pin: Pinned) -> None:
            async with limiter:
                await self.dial_for(pin)

        async with trio.open_nursery() as nursery:
            for pin in self._hub.pins:
                if pin not in self._heirs and not pin.tainted:
                    nursery.start_soon(dial_in_turn, pin)

    async def dial_for(self, pin: Pinned) -> None:
        """A connection for this one."""
        try:
            self._heirs[pin] = Heir(pin, await self._dial())
            self._failed.pop(pin, None)
        except ConnectError as problem:
            self._failed[pin] = problem.text

    def prepare(self) -> None:
        """Give each heir its session's state; nothing is in flight. `ready` tells when they have it."""
        for pin, heir in self._present():
            heir.prepare(self._client_id)
            pin.ask_for_the_rest()
        self._hub.flush()

    def _present(self) -> list[tuple[Pinned, Heir]]:
        """Without those whose client has left since."""
        pins = set(self._hub.pins)
        return [(pin, heir) for pin, heir in self._heirs.items() if pin in pins]

    def _client_id(self, session: int) -> int | None:
        """The server's number of the connection that the session with this number of ours is about to have."""
        wanted = self._hub.sessions.get(session)
        heir = None if wanted is None or wanted.pin is None else self._heirs.get(wanted.pin)
        return None if heir is None else heir.link.wire.client_id

    @property
    def ready(self) -> bool:
        """Every heir has what its session has."""
        return not any(heir.awaited for _, heir in self._present())

    def problems(self) -> list[str]:
        """Why sessions could not be moved: they would be disconnected."""
        told = [(pin, heir.problem) for pin, heir in self._present() if heir.problem]
        told += [(pin, problem) for pin, problem in self._failed.items() if pin in set(self._hub.pins)]
        named = "; ".join(f"{pin.session.address}: {problem}" for pin, problem in told[:NAMED])
        if not told:
            return []
        return [
            f"{len(told)} clients' state cannot be made on the other side ({named}): let them end, or CLIENT KILL them"
        ]

    def leave_behind(self) -> None:
        """The last moment in which the old side serves: a session that cannot go on elsewhere is
        disconnected, as if by it."""
        for pin in self._hub.pins:
            heir = self._heirs.get(pin)
            if heir is None or heir.problem or heir.awaited or not pin.idle:
                pin.link.lose("the serving side changes, and what this client has cannot be made anew there")

    def hand_over(self) -> None:
        """The other side serves: the pinned sessions go on there."""
        for pin in self._hub.pins:
            pin.move_to(self._heirs.pop(pin).link)
            faults.reached("flip half handed over")
        self._hub.pins.drop_spares()

    def close(self) -> None:
        """The flip is over: what was not handed over is not needed."""
        for heir in self._heirs.values():
            heir.link.close()
        self._heirs.clear()
