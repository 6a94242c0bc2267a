"""What is written beside the lane's order is believed only where nothing else happened.

A ferry is held back at the worst moments. What is switched off: the judgement on a crossing's keys, the fencing of a
lost ferry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from backfill.direct.selection import Selection
from backfill.errors import ConnectionLost
from backfill.url import parse_url
from proxy import flip as flipping
from proxy import journal
from proxy.courtesy import Courtesy
from proxy.ferry.crossings import Crossing, Crossings
from proxy.ferry.ferrying import Ferrying, FerryLost
from proxy.filling import Filling, Plan
from proxy.flip import Terms, flip
from proxy.hub import FLIP
from proxy.progress import Pages, Position, Progress
from proxy.side import Side
from tests.equality import What
from tests.guards.rig import Gate, RelayTo, in_thread
from tests.inprocess import InProcess, in_process, until
from tests.proxies import url_of
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
        self.in_vain = False
        self._leave = trio.Event()
        self._ferrying = Ferrying(
            running.proxy, self.pages, self.progress, leave=self._wait, in_vain=lambda: self.in_vain
        )

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
            await trio.sleep(0.05)  # some ticks, none of which may settle
            made.go()
            await until(lambda: server_91.call("EXISTS", "k") and not made.crossings.open, "the copy")
            gate.shut = False
            running.hub.mirror.flush()
        await running.settled()
        found = await running.differences()
    assert [(one.key, one.what) for one in found] == ([] if guarded else [(b"k", What.VALUE)])


@ON_OFF
async def test_an_effect_that_was_under_way_when_it_began(
    guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log does not have it: it waits."""
    if not guarded:
        monkeypatch.setattr(Ferrying, "_all_settled", lambda self: trio.lowlevel.checkpoint())
    gate = Gate(monkeypatch)
    server_62.call("RPUSH", "k", "a", "b", "c", "d")
    async with in_process(server_62, server_91, backfilled=False) as running, trio.open_nursery() as nursery:
        client = await running.client()
        gate.shut = True
        await client.ask("LTRIM k 1 -1")
        made = Journey(running)
        made.go()
        nursery.start_soon(made.run)
        with trio.move_on_after(0.5 if guarded else 20):
            await made.ended.wait()
        gate.shut = False
        running.hub.mirror.flush()
        with trio.fail_after(20):
            await made.ended.wait()
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


async def test_a_copy_under_way_does_not_cover_what_it_did(
    relay_to: RelayTo, server_62: Server, server_91: Server
) -> None:
    """A copy in the lane was carried out before the ferry's write, and is answered behind it."""
    server_62.call("SET", "k", "old")
    async with in_process(server_62, server_91, backfilled=False) as running:
        hub, relay = running.hub, ferry_by(running, relay_to(server_91))
        async with journey(running) as made:
            await in_thread(relay.hold, Way.TO_SERVER)
            made.go()
            await until(lambda: made.crossings.open, "a crossing")
            await trio.sleep(0.1)  # into the relay; too early only makes the schedule harmless
            client = await running.client()
            running.stall(hub.mirror.link)
            await client.ask("SET k new")
            hub.repair.mark_unordered((0, b"k"), "test")
            hub.flush()
            await until(lambda: hub.repair.keys.queued_places(), "a copy")
            await until(lambda: server_91.call("GET", "k") == b"new", "the effect")
            await in_thread(relay.heal)
            await made.ended.wait()
            assert (0, b"k") in made.pages and made.pages.settled == Position(), "it is not settled yet"
            running.go(hub.mirror.link)
        await running.settled()
        assert not await running.differences()


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
            await in_thread(relay.hold, Way.TO_SERVER)
            made.go()
            await until(lambda: made.crossings.open, "a crossing")
            assert journal.crossings(directory) == {(0, b"k")}
            name = running.proxy.mirror.title("ferry").encode()
            assert name in server_91.call("CLIENT", "LIST"), "by this name the next proxy fences it"
            assert not running.hub.settled, "a stop is not clean, a flip has to wait"
            await in_thread(relay.heal)
        assert not journal.crossings(directory)
        assert (made.progress.copied, made.progress.aside, len(made.pages)) == (1, 1, 0)
        assert not await running.differences()


async def leave(count: int, size: int) -> None:
    """Every crossing may begin."""


def ferrying(running: InProcess) -> Ferrying:
    """One that nobody holds back."""
    return Ferrying(running.proxy, Pages(Position()), Progress(), leave=leave, in_vain=lambda: False)


class Lost(Ferrying):
    """It has settled all there is, then dbs are swapped, and it is lost."""

    async def run(self, selection: Selection, start: Position, dbs: list[int]) -> None:
        self._pages.close(self._pages.open(Position(done=tuple(dbs), scanned=1)))
        self._hub.repair.swaps += 1
        self.give_up("test")
        assert self._problem is not None
        raise self._problem


@pytest.mark.parametrize("lost", ["at once", "behind the flip"])
async def test_a_forced_flip_ends_it_before_the_target_serves(
    lost: str, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has sent would be written over what clients write there: nobody could tell the newer value any more."""
    forgives, waits, may = trio.Event(), trio.Event(), trio.Event()
    fence_id = Side.fence_id

    async def held(self: Courtesy, size: int) -> None:
        waits.set()
        await may.wait()

    async def late(self: Side, client_id: int, process: str) -> None:
        if lost != "at once":
            await forgives.wait()
        await fence_id(self, client_id, process)

    monkeypatch.setattr(Side, "fence_id", late)
    monkeypatch.setattr(Courtesy, "leave", held)
    monkeypatch.setattr(flipping, "QUIET_SECONDS", 0.3)
    server_62.call("SET", "k", "old")
    async with in_process(server_62, server_91, backfilled=False) as running, trio.open_nursery() as nursery:
        proxy, mirror = running.proxy, running.proxy.mirror
        proxy.settings = replace(proxy.settings, ferry=1)
        url, relay = mirror.url, ferry_by(running, relay_to(server_91))
        filling = Filling(proxy)
        nursery.start_soon(filling.run, Plan())
        await waits.wait()
        await in_thread(relay.hold, Way.TO_SERVER)
        may.set()
        await until(lambda: running.hub.beside, "a crossing")
        await trio.sleep(0.1)  # into the relay; too early only makes the schedule harmless
        mirror.url = url
        client = await running.client()
        await client.ask("SET k new")
        jobs: Any = SimpleNamespace(filling=filling)
        outcome = await flip(proxy, jobs, Terms(force=True))
        assert outcome.flipped is (lost == "at once"), outcome
        forgives.set()
        await in_thread(relay.heal)
        await trio.sleep(0.1)
        assert await client.ask("GET k") == [b"$3\r\nnew\r\n"]
        await until(lambda: filling.progress.complete, "the backfill")
        await running.settled()
        assert not await running.differences()
        nursery.cancel_scope.cancel()


async def test_what_happens_until_a_lost_one_is_fenced_is_not_kept(
    relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror side may be away for hours."""
    waits, forgives = trio.Event(), trio.Event()

    async def fence_id(self: Side, client_id: int, process: str) -> None:
        waits.set()
        await forgives.wait()

    server_62.call("SET", "k", "old")
    async with in_process(server_62, server_91, backfilled=False) as running:
        relay = ferry_by(running, relay_to(server_91))
        async with journey(running) as made:
            await in_thread(relay.hold, Way.TO_SERVER)
            made.go()
            await until(lambda: made.crossings.open, "a crossing")
            monkeypatch.setattr(Side, "fence_id", fence_id)
            made._ferrying.give_up("test")
            with trio.fail_after(20):
                await waits.wait()
            assert running.proxy.journal.tap is None and running.hub.repair.keys.cleaned is None
            assert running.hub.beside == 1
            forgives.set()
        assert running.hub.beside == 0
        directory = running.proxy.journal.directory
        assert not journal.crossings(directory) and journal.unsettled(directory) == {(0, b"k")}
        await in_thread(relay.heal)


async def test_its_log_is_bounded_while_the_mirror_side_hangs(
    server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.ferry.ferrying.LOG_BYTES", 500)
    gate = Gate(monkeypatch)
    server_62.call("SET", "k", "old")
    async with in_process(server_62, server_91, backfilled=False) as running:
        async with journey(running) as made:
            client = await running.client()
            gate.shut = True
            await client.ask(*(f"SET k{number} new" for number in range(100)))
            with trio.fail_after(3):  # far sooner than a link that hangs is given up
                await made.ended.wait()
            gate.shut = False
        assert "too much was written" in made.problem


async def test_dbs_are_swapped_and_it_is_lost(
    server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has settled is in another db by now."""
    monkeypatch.setattr("proxy.filling.Ferrying", Lost)
    server_62.call("SET", "k", "v")
    async with in_process(server_62, server_91, backfilled=False) as running:
        running.proxy.settings = replace(running.proxy.settings, ferry=1)
        await running.at_rest()
        assert not await running.differences()


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("redis://localhost:1", "connection refused"),
        ("the source", "it has reached another server"),
        ("redis://nobody:pw@{target}", "could not be fenced"),
    ],
    ids=["nowhere", "another server", "without a number"],
)
async def test_it_is_done_without_where_it_could_not_be_trusted(
    where: str, why: str, server_62: Server, server_91: Server
) -> None:
    server_62.call("SET", "k", "v")
    server_91.call("ACL", "SETUSER", "nobody", "on", ">pw", "~*", "+@all", "-client|id")
    async with in_process(server_62, server_91, backfilled=False) as running:
        target = f"127.0.0.1:{server_91.port}"
        running.proxy.mirror.url = parse_url(
            url_of(server_62) if where == "the source" else where.format(target=target)
        )
        with pytest.raises(FerryLost, match=why), trio.fail_after(20):
            await ferrying(running).run(Selection(), Position(), [0])
        assert not running.hub.beside and server_91.call("EXISTS", "k") == 0
    server_91.call("ACL", "DELUSER", "nobody")


async def test_what_the_target_refuses_it_is_copied_in_the_lane(server_62: Server, server_91: Server) -> None:
    for key in ("k1", "k2", "other"):
        server_62.call("SET", key, "v")
    server_91.call("ACL", "SETUSER", "some", "on", ">pw", "~k*", "+@all")
    async with in_process(server_62, server_91, backfilled=False) as running:
        running.proxy.mirror.url = parse_url(f"redis://some:pw@127.0.0.1:{server_91.port}")
        journey = ferrying(running)
        with trio.fail_after(20):
            await journey.run(Selection(), Position(), [0])
        assert journey._progress.aside == 2
        await running.settled()
        assert not await running.differences()
    server_91.call("ACL", "DELUSER", "some")


@pytest.mark.parametrize("why", ["in vain", "a flip"])
async def test_no_crossing_begins_when_it_must_not(why: str, server_62: Server, server_91: Server) -> None:
    server_62.call("SET", "k", "v")
    async with in_process(server_62, server_91, backfilled=False) as running, journey(running) as made:
        made.in_vain = why == "in vain"
        if why == "a flip":
            running.hub.pause(FLIP)
        made.go()
        for _ in range(50):  # at once, or never
            await trio.sleep(0.005)
            assert not running.hub.beside and not made.progress.aside
        running.hub.resume(FLIP)


@pytest.mark.parametrize("what", ["a flip", "SWAPDB"])
async def test_the_backfill_begins_again_when_what_it_crossed_says_nothing_any_more(
    what: str, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = trio.Event()

    async def held(self: Courtesy, size: int) -> None:
        waits.set()
        await trio.sleep_forever()

    monkeypatch.setattr(Courtesy, "leave", held)
    server_62.call("SET", "k", "v")
    async with in_process(server_62, server_91, backfilled=False) as running, trio.open_nursery() as nursery:
        proxy = running.proxy
        proxy.settings = replace(proxy.settings, ferry=1)
        nursery.start_soon(Filling(proxy).run, Plan())
        await waits.wait()
        if what == "SWAPDB":
            running.hub.repair.swaps += 1
        else:
            proxy.roles.epoch += 1
        await until(lambda: proxy.refills == 1, "a new beginning")
        nursery.cancel_scope.cancel()
