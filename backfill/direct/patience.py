"""Owns how long a run that was cut short is tried again: as long as it gets further, and for some seconds when it does
not. So a server may restart, or a network fail, and a server that is gone for good is told as what it is."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..errors import BackfillError, ConnectError, ConnectionLost, ServerRefuses

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
TROUBLE = (ConnectionLost, ConnectError, ServerRefuses)  # what may pass


class Patience:
    """`seconds` without any progress. `say` is told of every trial."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        self._seconds, self._say = seconds, say
        self._since = 0.0  # of trio's clock; set by the first trouble
        self._failures = 0
        self._reached: tuple[int, ...] = ()  # the most that a trial has: to do the same again is no progress

    def __repr__(self) -> str:
        return f"<Patience {self._failures} failures since {self._reached}>"

    def begin_anew(self) -> None:
        """Whatever comes is progress."""
        self._reached = ()

    async def again(self, trouble: BackfillError, reached: tuple[int, ...]) -> None:
        """Wait a moment, if it makes sense to try again. Errors: the trouble."""
        if isinstance(trouble, ServerRefuses) and not trouble.passing:
            raise trouble
        now = trio.current_time()
        if reached > self._reached:
            self._reached, self._since, self._failures = reached, now, 0
        if now - self._since > self._seconds:
            raise trouble
        self._say(f"{trouble.text}; trying again")
        await trio.sleep(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
        self._failures += 1
