"""A migration under way, for tests of applications: a proxy that has converged, flips from a thread, the verdict.

Owns: the flips in the background, and what must hold at the end of every test: no flip failed for good, nothing was
left unmirrored, both sides are equal. Knows nothing of any client.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from tests.equality import assert_equal_servers
from tests.proxies import RunningProxy, until
from tests.servers import Server

FLIP_EVERY_S = 0.15
FLIPS = 3  # at least; a test that ends sooner waits for them


class Migration:
    """`with Migration(source, target) as migration`: the backfill is complete, and clients may come."""

    def __init__(self, source: Server, target: Server, *, flipping: bool = False) -> None:
        self.source, self.target = source, target
        self.proxy = RunningProxy(source, target)
        self.flipping = flipping
        self.flips = 0
        self.refusals: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._flip_on_and_on, name="flips")
        self._stack = ExitStack()

    @property
    def port(self) -> int:
        return self.proxy.port

    @property
    def url(self) -> str:
        return self.proxy.url

    def client(self, db: int = 0, **options: Any) -> Any:
        """A plain redis-py client of the proxy, for the test itself."""
        return self.proxy.client(db, **options)

    def midway(self) -> None:
        """Where sides are swapped, returns after the next flip: for work that might be done before the first."""
        flips = self.flips
        if self.flipping:
            until(lambda: self.flips > flips or not self._thread.is_alive(), "a flip in the middle")

    def _flip(self) -> None:
        outcome = self.proxy.admin("FLIP", "SKIP-VERIFY")
        self.refusals += outcome["reasons"]  # under load there are some: it is tried again
        self.flips += outcome["flipped"]

    def _flip_on_and_on(self) -> None:
        while not self._stopping.wait(FLIP_EVERY_S):
            self._flip()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.proxy)
        self.proxy.admin("BACKFILL")
        until(lambda: self.proxy.status()["backfill"]["complete"], "the end of the backfill")
        if self.flipping:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._stack:
            if self._thread.is_alive():
                if error is None:
                    until(lambda: self.flips >= FLIPS or not self._thread.is_alive(), f"flips; {self.refusals}")
                self._stopping.set()
                self._thread.join()
            if error is None:
                self._assert_equal()
            else:
                error.add_note(f"{self.flips} flips; the proxy's log:\n{self.proxy.log[-5000:]}")

    def _assert_equal(self) -> None:
        assert not self.flipping or self.flips >= FLIPS, self.refusals
        status = self.proxy.wait_settled()
        assert not status["unmirrored"], status["unmirrored_commands"]
        assert_equal_servers(self.source, self.target)
