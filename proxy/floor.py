"""Drives synchronous handlers from sockets: the fast floor's only contact with trio.

Owns: which sockets are watched for what, when a batch of events is followed by one `flush`, and when `rest` is
called: nothing is ready, or it is the others' turn. Knows nothing of Redis. Three drivers with the same methods:
`EpollFloor` and `SelectorFloor` nest one selector in a single trio task (no task, lock or await per command),
`TaskFloor` uses a trio task per socket, for platforms whose selector cannot itself be waited for. Handlers never
block and never raise for what a peer did."""

from __future__ import annotations

import select
import selectors
from collections.abc import Callable
from typing import Protocol

import trio

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

BATCHES_BEFORE_YIELD = 16  # event batches served before other trio tasks get a turn
IN, OUT, RDHUP = 0x1, 0x4, 0x2000  # Linux' EPOLLIN, EPOLLOUT, EPOLLRDHUP: a look-up in the module is slow


def nothing() -> None: ...


class Handler(Protocol):
    """Something with a non-blocking socket. What one of them breaks must not stop the others: an exception that
    escapes from it is a defect, is logged, and costs it its connection (`broke`).

    One that has `drains` (true) promises to read all there is, or to call `Floor.watch` when it may have left some: a
    read that gives less than it asked for has left nothing. It may then be told only once of what has come."""

    def fileno(self) -> int: ...

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...

    def broke(self, error: Exception) -> None: ...


class Floor(Protocol):
    """What handlers may ask of their driver. All calls are synchronous and cheap."""

    def add(self, handler: Handler) -> None:
        """Watch the handler's socket for reading."""
        ...

    def watch(self, handler: Handler, events: int) -> None:
        """Change what is watched for: any of READ | WRITE, or 0 for nothing."""
        ...

    def remove(self, handler: Handler) -> None:
        """Forget the handler. Must be called before its socket is closed."""
        ...

    def later(self) -> None:
        """Something has been put off: call `rest` before long."""
        ...

    async def run(self) -> None:
        """Serve events until cancelled."""
        ...


class SelectorFloor:
    """All sockets in one selector, waited for by one trio task."""

    def __init__(self, flush: Callable[[], None], rest: Callable[[], None] = nothing) -> None:
        self._selector = selectors.DefaultSelector()
        self._flush = flush
        self._rest = rest

    def __repr__(self) -> str:
        return f"<SelectorFloor sockets={len(self._selector.get_map() or ())}>"

    def add(self, handler: Handler) -> None:
        self._selector.register(handler.fileno(), READ, handler)

    def watch(self, handler: Handler, events: int) -> None:
        fileno = handler.fileno()
        sockets = self._selector.get_map()
        if sockets is None:
            return  # the loop has ended
        known = fileno in sockets
        if events and known:
            self._selector.modify(fileno, events, handler)
        elif events:
            self._selector.register(fileno, events, handler)
        elif known:
            self._selector.unregister(fileno)

    def remove(self, handler: Handler) -> None:
        self.watch(handler, 0)

    def later(self) -> None:
        """It rests whenever nothing is ready."""

    async def run(self) -> None:
        poll, flush = self._selector.select, self._flush
        waitable: int = self._selector.fileno()
        try:
            while True:
                await trio.lowlevel.wait_readable(waitable)
                for _ in range(BATCHES_BEFORE_YIELD):
                    ready = poll(0)
                    if not ready:
                        break
                    for key, events in ready:
                        try:
                            if events & READ:
                                key.data.on_readable()
                            if events & WRITE:
                                key.data.on_writable()
                        except Exception as error:
                            key.data.broke(error)
                    flush()
                self._rest()
        finally:
            self._selector.close()


def platform_floor(flush: Callable[[], None], rest: Callable[[], None] = nothing) -> Floor:
    """The fastest driver that this platform has. `flush` is called after each batch of events, `rest` before waiting
    (and before other trio tasks get a turn)."""
    if hasattr(select, "epoll"):
        from proxy.epoll_floor import EpollFloor

        return EpollFloor(flush, rest)
    if hasattr(selectors.DefaultSelector, "fileno"):
        return SelectorFloor(flush, rest)
    return TaskFloor(flush, rest)


class TaskFloor:
    """One trio task per socket and direction; slower, but needs nothing but trio's own waiting."""

    def __init__(self, flush: Callable[[], None], rest: Callable[[], None] = nothing) -> None:
        self._flush = flush
        self._rest = rest
        self._events: dict[int, tuple[Handler, int]] = {}
        self._scopes: dict[tuple[int, int], trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<TaskFloor sockets={len(self._events)}>"

    def add(self, handler: Handler) -> None:
        self.watch(handler, READ)

    def watch(self, handler: Handler, events: int) -> None:
        fileno = handler.fileno()
        if events:
            self._events[fileno] = (handler, events)
        else:
            self._events.pop(fileno, None)
        for event in (READ, WRITE):
            self._adjust(fileno, event, bool(events & event))

    def remove(self, handler: Handler) -> None:
        self.watch(handler, 0)

    def later(self) -> None:
        """It rests after every event."""

    def _adjust(self, fileno: int, event: int, wanted: bool) -> None:
        scope = self._scopes.get((fileno, event))
        if not wanted and scope is not None:
            scope.cancel()
            del self._scopes[fileno, event]
        elif wanted and scope is None and self._nursery is not None:
            scope = self._scopes[fileno, event] = trio.CancelScope()
            self._nursery.start_soon(self._serve, fileno, event, scope)

    async def _serve(self, fileno: int, event: int, scope: trio.CancelScope) -> None:
        wait = trio.lowlevel.wait_readable if event == READ else trio.lowlevel.wait_writable
        with scope:
            while not scope.cancel_called:
                await wait(fileno)
                handler, events = self._events.get(fileno, (None, 0))
                if handler is None or not events & event:
                    return
                try:
                    if event == READ:
                        handler.on_readable()
                    else:
                        handler.on_writable()
                except Exception as error:
                    handler.broke(error)
                self._flush()
                self._rest()

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            for fileno, (handler, events) in list(self._events.items()):
                self._events[fileno] = (handler, 0)
                self.watch(handler, events)
            await trio.Event().wait()  # until cancelled
