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
from typing import Any

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
        self._trios = -1  # a descriptor (see `wait_for_trio`)

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
        trios = _Trio.found()
        with self._poll:
            if trios is None:
                while True:
                    await trio.lowlevel.wait_readable(self._poll.fileno())
                    self.serve_all()
                    self._rest()
            waiter = _waiter.get(None) or _Waiter(trios)
            with waiter.waits_for(self):
                await waiter.failed.wait()
            raise waiter.error

    def fileno(self) -> int:
        return self._poll.fileno()

    def wait_for_trio(self, fileno: int) -> None:
        """`serve` is to return also when trio's own sockets are ready, and to say so."""
        self._trios = fileno
        self._poll.register(fileno, IN)

    def serve_all(self) -> None:
        """Everything that is ready, or so much of it that it is the others' turn."""
        for _ in range(BATCHES_BEFORE_YIELD):
            if self.serve() is not True:
                break

    def serve(self, patience: float = 0.0) -> bool | None:
        """What is ready, or the first that is within so many seconds. Whether there was anything; None: trio's sockets
        are ready, too."""
        handlers, trios_turn = self._handlers, False
        ready = self._poll.poll(patience)
        if not ready:
            return False
        for fileno, events in ready:
            handler = handlers.get(fileno)
            if handler is None:  # or it was closed by one before it in this batch
                trios_turn = trios_turn or fileno == self._trios
                continue
            try:
                if events == IN:
                    handler.on_readable()
                else:
                    self._serve(handler, fileno, events)
            except Exception as error:
                handler.broke(error)
        self._flush()
        return None if trios_turn else True

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

    def __init__(self, trios: _Trio) -> None:
        self.failed = trio.Event()
        self.error: BaseException = AssertionError("it has not failed")
        self._floors: list[EpollFloor] = []
        self._trios = trios
        self._all = select.epoll()  # of several floors
        self._wake = trio.lowlevel.current_trio_token().run_sync_soon

    @contextmanager
    def waits_for(self, floor: EpollFloor) -> Iterator[None]:
        """Serve this floor, too."""
        if not self._floors:
            _waiter.set(self)
            trio.lowlevel.add_instrument(self)
        self._floors.append(floor)
        floor.wait_for_trio(self._trios.fileno)
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
        """Serve until trio has something to do; whether it is something that its own wait would not see.

        One floor, as there mostly is, waits for its sockets and trio's in one: a command that comes alone then takes
        two calls of the system to wait where it takes six with an epoll around both and a look before and behind.
        """
        floors, clock = self._floors, time.monotonic
        now = clock()
        ends = now + timeout
        left = timeout
        while left > 0:
            for floor in floors:
                left = min(left, floor.rest(now))
            if self._serve(left):
                return False
            left = min(ends - (now := clock()), self._trios.idle_for())
        for floor in floors:
            floor.serve_all()
            floor.rest(now)
        return timeout > 0 and self._trios.idle_for() <= 0

    def _serve(self, patience: float) -> bool:
        """What is ready on any floor within so many seconds; whether trio's sockets are."""
        floors = self._floors
        if len(floors) == 1:
            return floors[0].serve(patience) is None
        self._all.poll(patience)
        return None in [floor.serve() for floor in floors]


_waiter: trio.lowlevel.RunVar[_Waiter | None] = trio.lowlevel.RunVar("waiter")


class _Trio:
    """What has to be known of the trio loop that runs. It has no public names, or (`current_statistics`) none that are
    found in 0.2 µs, where this is asked behind every batch."""

    def __init__(self, runner: Any) -> None:
        self.fileno: int = runner.io_manager._epoll.fileno()  # of what it waits for
        self._runnable = runner.runq
        self._next_deadline: Callable[[], float] = runner.deadlines.next_deadline
        self._now: Callable[[], float] = runner.clock.current_time
        self.idle_for()

    @classmethod
    def found(cls) -> _Trio | None:
        """None: this trio keeps it elsewhere."""
        try:
            return cls(trio._core._run.GLOBAL_RUN_CONTEXT.runner)
        except AttributeError:
            return None

    def idle_for(self) -> float:
        """For how many seconds it has nothing to do, if nothing happens; 0 or less: it has something."""
        return 0.0 if self._runnable else self._next_deadline() - self._now()
