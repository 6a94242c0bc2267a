"""The fast floor on Linux: epoll itself, in the place where trio would wait.

Owns: who waits, besides what every driver does (proxy/floor.py). To wake a task for every few bytes costs trio much: so
it is not asked. Before it goes to wait it tells its instruments (`trio.abc.Instrument.before_io_wait`), and there this
driver waits in its stead, for its own sockets and for trio's epoll together. It serves its own on the spot, and returns
as soon as trio has anything to do.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from proxy.floor import BATCHES_BEFORE_YIELD, READ, WRITE, Handler, nothing

LINGER_S = 0.001  # what is put off waits for so long; the kernel counts whole milliseconds
IN, OUT, RDHUP = 0x1, 0x4, 0x2000  # Linux' EPOLLIN, EPOLLOUT, EPOLLRDHUP: a look-up in the module is slow


class EpollFloor:
    """All sockets in one epoll.

    A handler that says `drains` is told once of what has come (edge-triggered): otherwise the kernel looks at every
    socket that was served once more at the next poll, only to find nothing. Measured (one run, interleaved): 1 to 4 %
    of the CPU time of single commands.
    """

    def __init__(self, flush: Callable[[], None], rest: Callable[[], None] = nothing) -> None:
        self._poll = select.epoll()
        self._flush = flush
        self._rest = rest
        self._put_off = 0.0  # when something was, that `rest` is to do; 0.0: nothing
        self._handlers: dict[int, Handler] = {}
        self._masks: dict[int, int] = {}  # what each was last watched for

    def __repr__(self) -> str:
        return f"<EpollFloor sockets={len(self._handlers)}>"

    def add(self, handler: Handler) -> None:
        self.watch(handler, READ)

    def watch(self, handler: Handler, events: int) -> None:
        if self._poll.closed:
            return  # the loop has ended
        fileno = handler.fileno()
        mask = (IN if events & READ else 0) | (OUT if events & WRITE else 0)
        known = self._handlers.get(fileno)
        if not mask:
            if known is not None:
                del self._handlers[fileno]
                self._poll.unregister(fileno)
            return
        if getattr(handler, "drains", False):
            mask |= select.EPOLLET | (RDHUP if events & READ else 0)
        if known is None:
            self._poll.register(fileno, mask)
        else:
            self._poll.modify(fileno, mask)  # tells of what is there again, even what was told before
        self._handlers[fileno], self._masks[fileno] = handler, mask

    def remove(self, handler: Handler) -> None:
        self.watch(handler, 0)

    def later(self) -> None:
        if not self._put_off:
            self._put_off = time.monotonic()

    async def run(self) -> None:
        trios = _epoll_of_trio()
        with self._poll:
            if trios is None:
                while True:
                    await trio.lowlevel.wait_readable(self._poll.fileno())
                    self.serve()
                    self._rest()
            waiter = _waiter.get(None) or _Waiter(trios)
            with waiter.waits_for(self):
                await waiter.failed.wait()
            raise waiter.error

    def fileno(self) -> int:
        return self._poll.fileno()

    def serve(self) -> None:
        """Everything that is ready, or so much of it that it is the others' turn."""
        poll, handlers, flush = self._poll.poll, self._handlers, self._flush
        for _ in range(BATCHES_BEFORE_YIELD):
            ready = poll(0)
            if not ready:
                break
            for fileno, events in ready:
                handler = handlers.get(fileno)
                if handler is None:
                    continue  # closed by one before it in this batch
                try:
                    if events == IN:
                        handler.on_readable()
                    else:
                        self._serve(handler, fileno, events)
                except Exception as error:
                    handler.broke(error)
            flush()

    def rest(self, now: float) -> float:
        """Do what was put off if it is time to; for how many seconds it can wait."""
        if not self._put_off:
            return math.inf
        left = self._put_off + LINGER_S - now
        if left > 0:
            return left
        self._put_off = 0.0
        self._rest()
        return math.inf

    def _serve(self, handler: Handler, fileno: int, events: int) -> None:
        """Anything but plain bytes to read."""
        if events != OUT:
            handler.on_readable()
        if events & OUT:
            handler.on_writable()
        if events & RDHUP and self._handlers.get(fileno) is handler:
            # The end came with the last bytes, and only these may have been read: it is told of again.
            self._poll.modify(fileno, self._masks[fileno])


class _Waiter(trio.abc.Instrument):
    """Waits in the place of one trio loop, for all floors in it. `failed`: serving raised `error`, a defect."""

    def __init__(self, trios: int) -> None:
        self.failed = trio.Event()
        self.error: BaseException = AssertionError("it has not failed")
        self._floors: list[EpollFloor] = []
        self._trios = trios
        self._all = select.epoll()
        self._all.register(trios, IN)
        self._wake = trio.lowlevel.current_trio_token().run_sync_soon

    @contextmanager
    def waits_for(self, floor: EpollFloor) -> Iterator[None]:
        """Serve this floor, too."""
        if not self._floors:
            _waiter.set(self)
            trio.lowlevel.add_instrument(self)
        self._floors.append(floor)
        self._all.register(floor.fileno(), IN)
        try:
            yield
        finally:
            self._floors.remove(floor)
            self._all.unregister(floor.fileno())
            if not self._floors:
                _waiter.set(None)
                trio.lowlevel.remove_instrument(self)
                self._all.close()

    def before_io_wait(self, timeout: float) -> None:
        """trio is about to wait for so many seconds; 0: only to look."""
        if self.failed.is_set():
            return
        try:
            unseen = self._wait(timeout)
        except BaseException as error:  # trio would log it and go on without us
            self.error, unseen = error, True
            self.failed.set()
        if unseen:
            self._wake(nothing)

    def _wait(self, timeout: float) -> bool:
        """Serve until trio has something to do; whether it is something that its own wait would not see."""
        now = time.monotonic
        ends = now() + timeout
        while True:
            rests = math.inf
            for floor in self._floors:
                floor.serve()
                rests = min(rests, floor.rest(now()))
            if not timeout:
                return False
            others = trio.lowlevel.current_statistics()
            if others.tasks_runnable or others.seconds_to_next_deadline <= 0:
                return True
            left = min(ends - now(), others.seconds_to_next_deadline)
            if left <= 0:
                return False
            for fileno, _ in self._all.poll(min(left, rests)):
                if fileno == self._trios:
                    return False


_waiter: trio.lowlevel.RunVar[_Waiter | None] = trio.lowlevel.RunVar("waiter")


def _epoll_of_trio() -> int | None:
    """What trio waits for, to be waited for; it has no public name. None: this trio keeps it elsewhere."""
    try:
        found: int = trio._core._run.GLOBAL_RUN_CONTEXT.runner.io_manager._epoll.fileno()
    except AttributeError:
        return None
    return found
