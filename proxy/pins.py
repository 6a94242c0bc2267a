"""All pinned connections, and a few spare ones.

Owns which session has which, opening and giving back. A connection goes back to the spare ones only when it carries no
state; what it carries is `pinned.py`'s, how it changes sides `moving.py`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from backfill.errors import ConnectError
from backfill.wire import Wire
from proxy.carried import NOT_SUBSCRIBING, SUBSCRIBING
from proxy.link import Link
from proxy.pinned import Pinned
from proxy.session import Command, Mode, Session
from resp.encode import error

if TYPE_CHECKING:
    from proxy.hub import Hub

REDIAL_SECONDS = 0.2
IDLE_PINS = 32  # connections without state that are kept for the next session


class Subscriptions:
    """Those that were asked for and may not be in force yet: numbers, in the order of asking."""

    def __init__(self) -> None:
        self.asked = 0
        self._unheard: dict[int, None] = {}

    def __repr__(self) -> str:
        return f"<Subscriptions {len(self._unheard)} of {self.asked} unheard>"

    def ask(self) -> int:
        """One more is asked for; its number."""
        self.asked += 1
        self._unheard[self.asked] = None
        return self.asked

    def hear(self, number: int) -> None:
        """The server has answered behind it, or never will."""
        self._unheard.pop(number, None)

    def heard(self, number: int) -> bool:
        """Whether all up to this number are in force."""
        return next(iter(self._unheard), number + 1) > number


class Pins:
    """All pinned connections, and a few spare ones."""

    def __init__(
        self,
        hub: Hub,
        dial: Callable[[], Awaitable[Link]],
        start_soon: Callable[..., None],
        fence: Callable[[Wire, Callable[[], None]], None],
    ) -> None:
        self.touched: list[Pinned] = []
        self.fence = fence
        self._hub = hub
        self._dial = dial
        self._start_soon = start_soon
        self._pins: dict[Pinned, None] = {}
        self._spare: list[Link] = []
        self._opening = 0
        self.subscriptions = Subscriptions()

    def __repr__(self) -> str:
        return f"<Pins open={len(self._pins)} spare={len(self._spare)} opening={self._opening}>"

    def __len__(self) -> int:
        return len(self._pins)

    def __iter__(self) -> Iterator[Pinned]:
        return iter(list(self._pins))

    @property
    def idle(self) -> bool:
        """No reply is awaited on any of them."""
        return not self._opening and all(pin.idle for pin in self._pins)

    def flush(self) -> None:
        """Send what has gathered on each."""
        touched, self.touched = self.touched, []
        for pin in touched:
            pin.flush()

    def open(self, session: Session, args: Command | None) -> None:
        """Give the session a connection, then send this command on it; None: it keeps it for good."""
        while self._spare:
            link = self._spare.pop()
            if link.fileno() >= 0:
                self._give(session, link, args)
                return
        session.mode = Mode.OPENING
        self._opening += 1
        subscribes = args is not None and SUBSCRIBING.get(args[0].upper(), NOT_SUBSCRIBING)[1]
        self._start_soon(self._open, session, args, self.subscriptions.ask() if subscribes else 0)

    async def _open(self, session: Session, args: Command | None, subscription: int) -> None:
        try:
            link = await self._patient_dial(session)
            if link is not None:
                self._give(session, link, args)
            elif session.open:
                session.mode = Mode.READY
                session.put(error("ERR " + self._hub.refusal))
        finally:
            self._opening -= 1
            self.subscriptions.hear(subscription)
            self._hub.flush()

    async def _patient_dial(self, session: Session) -> Link | None:
        """A connection to the serving side, waited for as long as lane commands are; None: the client left, or is to be
        told why there is none."""
        while session.open and not self._hub.refusal:
            with suppress(ConnectError):
                link = await self._dial()
                if session.open:
                    return link
                link.close()
                return None
            await trio.sleep(REDIAL_SECONDS)
        return None

    def give_one(self, session: Session) -> None:
        """A session without a command for it needs a connection of its own, for good: others' tracking is redirected to
        it."""
        if session.pin is None and session.mode is Mode.READY:
            session.when_idle(lambda: self.open(session, None))

    def _give(self, session: Session, link: Link, args: Command | None) -> None:
        pin = Pinned(self._hub, session, link)
        self._pins[pin] = None
        session.pin = pin
        session.mode = Mode.PINNED
        if args is None:
            pin.listening = True
        else:
            pin.send(self._hub.router.catalog.lookup(args), args)
        self._hub.touched.append(session)

    def when(self, condition: Callable[[], bool], action: Callable[[], None]) -> None:
        """Run `action` once the condition holds."""

        async def wait() -> None:
            await self._hub.until(condition)
            action()
            self._hub.flush()

        self._start_soon(wait)

    def give_back(self, pin: Pinned) -> None:
        """The connection carries no state any more."""
        self.forget(pin)
        if len(self._spare) < IDLE_PINS:
            pin.link.owner = _Spare(self._spare)
            self._spare.append(pin.link)
        else:
            pin.link.close()

    def forget(self, pin: Pinned) -> None:
        self._pins.pop(pin, None)

    def close(self) -> None:
        """The proxy stops."""
        for link in [*self._spare, *(pin.link for pin in self._pins)]:
            link.wire.close()

    def drop_spares(self) -> None:
        """Another side serves."""
        for link in self._spare:
            link.close()
        self._spare.clear()


class _Spare:
    """Owns a connection that nobody uses."""

    def __init__(self, spare: list[Link]) -> None:
        self._spare = spare

    def on_frames(self, frames: list[bytes]) -> None:
        """Nothing is awaited; what comes is of no interest."""

    def on_full(self, full: bool) -> None:
        """Nothing is sent here."""

    def on_lost(self, link: Link, reason: str) -> None:
        if link in self._spare:
            self._spare.remove(link)
