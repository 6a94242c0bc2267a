"""What is written beside the lane's order is believed only where nothing else happened.

A ferry is held back at the worst moments. What is switched off: the judgement on a crossing's keys, the fencing of a
lost ferry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from backfill.direct.selection import Selection
from backfill.errors import ConnectionLost
from backfill.url import parse_url
from proxy import journal
from proxy.ferry.crossings import Crossing, Crossings
from proxy.ferry.ferrying import Ferrying, FerryLost
from proxy.progress import Pages, Position, Progress
from proxy.side import Side
from tests.equality import What
from tests.guards.rig import Gate, RelayTo, in_thread
from tests.inprocess import InProcess, in_process, until
from tests.relay import Relay, Way
from tests.servers import Server

ON_OFF = pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])


class Journey:
    """A ferry that copies db 0, each crossing when the test says so."""

    def __init__(self, running: InProcess) -> None:
        self.progress = Progress()
        self.pages = Pages(Position())
        self.waits = 0  # crossings that are waiting for their leave
        self.ended = trio.Event()
        self.problem = ""
        self._leave = trio.Event()
        self._ferrying = Ferrying(running.proxy, self.pages, self.progress, leave=self._wait, in_vain=lambda: False)

    @property
    def crossings(self) -> Crossings:
        return self._ferrying._crossings

    def go(self) -> None:
        self._leave.set()

    async def _wait(self, count: int, size: int) -> None:
        self.waits += 1
        await self._leave.wait()

    async def run(self) -> None:
        try:
            await self._ferrying.run(Selection(), Position(), [0])
        except (ConnectionLost, FerryLost) as problem:
            self.problem = problem.text
        self.ended.set()


@asynccontextmanager
async def journey(running: InProcess) -> AsyncIterator[Journey]:
    """One that is about to cross for the first time."""
    async with trio.open_nursery() as nursery:
        made = Journey(running)
        nursery.start_soon(made.run)
        await until(lambda: made.waits, "the first crossing")
        yield made
        with trio.fail_after(20):
            await made.ended.wait()


def ferry_by(running: InProcess, relay: Relay) -> Relay:
    """The ferry reaches the mirror side by way of the relay, everybody else does not."""
    running.proxy.mirror.url = parse_url(relay.url)
    return relay


def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(self: Crossings, number: int) -> tuple[Crossing, set[Any]]:
        return self.open.pop(number), set()

    monkeypatch.setattr(Crossings, "end", end)


@ON_OFF
async def test_an_effect_that_was_under_way_when_the_key_was_read(
    guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy shows the write already, and the effect changes the copy once more; its reply does not tell."""
    if not guarded:
        unjudged(monkeypatch)
    gate = Gate(monkeypatch)
    server_62.call("RPUSH", "k", "a", "b", "c", "d")
    async with in_process(server_62, server_91, backfilled=False) as running:
        async with journey(running) as made:
            client = await running.client()
            gate.shut = True
            await client.ask("LTRIM k 1 -1")
            made.go()
            await until(lambda: server_91.call("EXISTS", "k") and not made.crossings.open, "the copy")
            gate.shut = False
            running.hub.mirror.flush()
        await running.settled()
        found = await running.differences()
    assert [(one.key, one.what) for one in found] == ([] if guarded else [(b"k", What.VALUE)])


@ON_OFF
@pytest.mark.parametrize("command", ["SET k new", "DEL k", "FLUSHALL"])
async def test_a_write_behind_what_was_read(
    guarded: bool,
    command: str,
    relay_to: RelayTo,
    server_62: Server,
    server_91: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The copy is older than the effect, and arrives behind it."""
    if not guarded:
        unjudged(monkeypatch)
    server_62.call("SET", "k", "old")
    async with in_process(server_62, server_91, backfilled=False) as running:
        relay = ferry_by(running, relay_to(server_91))
        async with journey(running) as made:
            await in_thread(relay.hold, Way.TO_SERVER)
            made.go()
            await until(lambda: made.crossings.open, "a crossing")
            await trio.sleep(0.1)  # into the relay; too early only makes the schedule harmless, and `off` fails
            client = await running.client()
            await client.ask(command)
            await until(lambda: running.hub.mirror.idle)
            await in_thread(relay.heal)
        await running.settled()
        found = await running.differences()
    expected = What.VALUE if "new" in command else What.EXTRA
    assert [(one.key, one.what) for one in found] == ([] if guarded else [(b"k", expected)])


@ON_OFF
async def test_what_a_lost_ferry_still_carries(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:

        async def fence_id(self: Side, client_id: int, process: str) -> None:
            await self.wait_up()

        monkeypatch.setattr(Side, "fence_id", fence_id)
    server_62.call("SET", "k", "old")
    async with in_process(server_62, server_91, backfilled=False) as running:
        relay = ferry_by(running, relay_to(server_91))
        async with journey(running) as made:
            await in_thread(relay.hold, Way.TO_SERVER)
            made.go()
            await until(lambda: made.crossings.open, "a crossing")
            await trio.sleep(0.1)  # into the relay; too early only makes the schedule harmless, and `off` fails
            assert await in_thread(relay.strand) > 0
        assert "lost the connection" in made.problem
        client = await running.client()
        await client.ask("DEL k")
        await running.settled()
        assert not await running.differences()
        await in_thread(relay.deliver)
        await running.settled()
        found = await running.differences()
    assert [(one.key, one.what) for one in found] == ([] if guarded else [(b"k", What.EXTRA)])


async def test_the_keys_of_an_open_crossing_are_on_disk(
    relay_to: RelayTo, server_62: Server, server_91: Server
) -> None:
    """Were the proxy killed meanwhile, its next start would have to know them."""
    server_62.call("SET", "k", "v")
    async with in_process(server_62, server_91, backfilled=False) as running:
        directory = running.proxy.journal.directory
        relay = ferry_by(running, relay_to(server_91))
        async with journey(running) as made:
            assert not journal.crossings(directory)
            await in_thread(relay.hold, Way.TO_SERVER)
            made.go()
            await until(lambda: made.crossings.open, "a crossing")
            assert journal.crossings(directory) == {(0, b"k")}
            await in_thread(relay.heal)
        assert not journal.crossings(directory)
        assert (made.progress.copied, made.progress.aside, len(made.pages)) == (1, 1, 0)
        assert not await running.differences()
