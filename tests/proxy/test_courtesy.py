"""A backfill yields when the serving side answers late, and takes the room back when it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from proxy.courtesy import FEWEST, KEYS_PER_SECOND, NEAR, Courtesy
from proxy.repair import READS_UNDER_WAY

MOST = round(0.001 * KEYS_PER_SECOND)  # while the lane answers after 1 ms


class SlowLane:
    """Answers every command after `delay` seconds."""

    def __init__(self, nursery: trio.Nursery, delay: float) -> None:
        self.delay = delay
        self.link = None
        self._nursery = nursery

    def call(self, db: int, commands: list[list[bytes]], callback: Callable[[bytes | None], None]) -> None:
        async def answer() -> None:
            await trio.sleep(self.delay)
            callback(b"*1\r\n+PONG\r\n")

        self._nursery.start_soon(answer)


class Pages:
    def __init__(self) -> None:
        self.may_read: Callable[[], bool] = lambda: True
        self.read_bytes: Callable[[int], None] = lambda size: None


class Repair:
    def __init__(self) -> None:
        self.window = READS_UNDER_WAY
        self.copies_in_pages = Pages()


class FakeHub:
    flipping = False

    def __init__(self, nursery: trio.Nursery, delay: float) -> None:
        self.lane = SlowLane(nursery, delay)
        self.repair = Repair()
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1

    async def until(self, condition: Callable[[], bool]) -> None:
        assert condition()


async def started(nursery: trio.Nursery, delay: float = 0.001, **options: Any) -> tuple[FakeHub, Courtesy]:
    hub = FakeHub(nursery, delay)
    courtesy = Courtesy(hub, **{"polite": True, "bandwidth": 0.0, **options})  # type: ignore[arg-type]
    await nursery.start(courtesy.run)
    return hub, courtesy


async def test_it_yields_and_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        hub, courtesy = await started(nursery)
        assert courtesy.baseline == pytest.approx(0.001)
        await trio.sleep(1)
        assert (courtesy.late, hub.repair.window) == (False, MOST)
        hub.lane.delay = 0.02
        await trio.sleep(1)
        assert (courtesy.late, hub.repair.window) == (True, FEWEST)
        pages = hub.repair.copies_in_pages
        pages.read_bytes(1000)
        assert not pages.may_read()
        hub.lane.delay = 0.001
        await trio.sleep(3)
        assert (courtesy.late, hub.repair.window) == (False, MOST)
        assert pages.may_read()
        hub.lane.delay = 0.02
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert hub.repair.window == READS_UNDER_WAY  # nothing of it stays behind
    assert hub.repair.copies_in_pages.may_read()


@pytest.mark.parametrize(("delay", "most"), [(0.0001, NEAR), (0.002, 80), (0.1, READS_UNDER_WAY)])
async def test_no_more_at_once_than_are_copied_in_a_round_trip(
    autojump_clock: trio.testing.MockClock, delay: float, most: int
) -> None:
    """Else the replies that come together keep clients waiting for longer than a round trip."""
    async with trio.open_nursery() as nursery:
        hub, _ = await started(nursery, delay)
        assert hub.repair.window == most
        await trio.sleep(2)
        assert hub.repair.window == most
        nursery.cancel_scope.cancel()
    assert hub.repair.window == READS_UNDER_WAY


async def test_one_that_is_not_polite_takes_all(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        hub, _ = await started(nursery, polite=False)
        await trio.sleep(1)
        assert hub.repair.window == READS_UNDER_WAY
        nursery.cancel_scope.cancel()


async def test_a_single_late_reply_is_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        hub, courtesy = await started(nursery)
        await trio.sleep(0.5)
        hub.lane.delay = 0.05
        await trio.sleep(0.021)
        hub.lane.delay = 0.001
        await trio.sleep(0.5)
        assert (courtesy.late, hub.repair.window) == (False, MOST)
        nursery.cancel_scope.cancel()


async def test_the_bandwidth(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        hub, courtesy = await started(nursery, polite=False, bandwidth=1000.0)
        began = trio.current_time()
        for _ in range(10):
            await courtesy.wait(500)
        assert trio.current_time() - began == pytest.approx(5.0, abs=0.1)
        pages = hub.repair.copies_in_pages
        pages.read_bytes(2000)
        await trio.sleep(1.9)
        assert not pages.may_read()
        await trio.sleep(0.2)
        assert pages.may_read()
        nursery.cancel_scope.cancel()
