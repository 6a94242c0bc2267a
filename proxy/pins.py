"""All pinned connections, and a few spare ones.

Owns which session has which, opening and giving back. A connection goes back to the spare ones only when it carries no
state; what it carries is `pinned.py`'s. At a flip every one of them is made anew on the side that serves then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

import trio

from backfill.errors import ConnectError
from backfill.wire import Wire
from proxy.link import Link
from proxy.pinned import Pinned
from proxy.session import Command, Mode, Session
from resp.encode import error

if TYPE_CHECKING:
    from proxy.hub import Hub

IDLE_PINS = 32  # connections without state that are kept for the next session


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

    def open(self, session: Session, args: Command) -> None:
        """Give the session a connection, then send this command on it."""
        while self._spare:
            link = self._spare.pop()
            if link.fileno() >= 0:
                self._give(session, link, args)
                return
        session.mode = Mode.OPENING
        self._opening += 1
        self._start_soon(self._open, session, args)

    async def _open(self, session: Session, args: Command) -> None:
        try:
            link = await self._dial()
        except ConnectError as problem:
            if session.open:
                session.mode = Mode.READY
                session.put(error("ERR crossfade: " + problem.text))
        else:
            if session.open:
                self._give(session, link, args)
            else:
                link.close()
        finally:
            self._opening -= 1
            self._hub.flush()

    def _give(self, session: Session, link: Link, args: Command) -> None:
        pin = Pinned(self._hub, session, link)
        self._pins[pin] = None
        session.pin = pin
        session.mode = Mode.PINNED
        pin.send(self._hub.router.catalog.lookup(args), args)
        self._hub.touched.append(session)

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

    async def move(self) -> None:
        """A flip: every pinned session gets a connection to the side that serves now, or is disconnected."""
        for link in self._spare:
            link.close()
        self._spare.clear()
        links: dict[Pinned, Link | None] = {}
        async with trio.open_nursery() as nursery:
            for pin in list(self._pins):
                nursery.start_soon(self._dial_for, pin, links)
        self.arrive(links)

    def arrive(self, links: dict[Pinned, Link | None]) -> None:
        """The new connections are there; None: there is none, and the session ends."""
        redirecting = [pin for pin in links if pin.redirects]  # after those that they redirect to
        for pin in [*(pin for pin in links if not pin.redirects), *redirecting]:
            moved_to = links[pin]
            if moved_to is None:
                pin.session.close()
            elif pin.session.open:
                pin.move_to(moved_to)
            else:
                moved_to.close()
        self._hub.flush()

    async def _dial_for(self, pin: Pinned, links: dict[Pinned, Link | None]) -> None:
        try:
            links[pin] = await self._dial()
        except ConnectError:
            links[pin] = None


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
