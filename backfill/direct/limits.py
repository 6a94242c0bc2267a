"""Owns the brakes of a copy: bytes under way, keys and bytes a second."""

from __future__ import annotations

import trio


class Budget:
    """Bytes that may be under way at once. A single piece larger than all of it goes alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Budget {self._used} of {self._limit}>"

    async def take(self, amount: int) -> None:
        while self._used and self._used + amount > self._limit:
            await self._waiting.park()
        self._used += amount

    def give(self, amount: int) -> None:
        self._used -= amount
        self._waiting.unpark_all()


class Rate:
    """So many units a second at most; 0: as many as it goes. Idle time earns at most one burst."""

    BURST_S = 0.1

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._due = 0.0

    def portion(self, most: int) -> int:
        """How many to take at once so that they do not come in bursts, `most` at most."""
        return min(most, max(1, int(self._per_second * self.BURST_S))) if self._per_second else most

    async def take(self, amount: float) -> None:
        """Wait until the units taken before are paid."""
        if not self._per_second:
            return
        now = trio.current_time()
        self._due = max(self._due, now - self.BURST_S)
        if self._due > now:
            await trio.sleep(self._due - now)
        self._due += amount / self._per_second
