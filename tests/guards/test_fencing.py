"""Invariant 13: what a lost connection still carries must not run after its keys have been repaired.

A relay plays the network that keeps a connection's bytes and hands them over later. What is switched off: the kill of
the lost connection, or the draining of a pinned connection whose client vanished.
"""

from __future__ import annotations

import pytest
import trio

from proxy.pinned import Pinned
from proxy.side import Side
from tests.equality import What
from tests.guards.rig import RelayTo, in_thread, pins_by
from tests.inprocess import HungUp, InProcess, in_process, until
from tests.relay import Relay, Way
from tests.servers import Server


def unfenced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fence(self: Side, wire) -> None:
        await self.wait_up()

    monkeypatch.setattr(Side, "fence", fence)


async def lose_with(running: InProcess, relay: Relay, command: str) -> int:
    """A client's command is lost between proxy and server; later the network delivers it. How many of the connections
    the server still heard out."""
    client = await running.client()
    await client.ask("PING")
    await in_thread(relay.hold, Way.TO_SERVER)
    await client.say(command)
    await until(lambda: not running.hub.drained or not running.hub.mirror.idle)
    await trio.sleep(0.05)  # into the relay; too early only makes the schedule harmless, and `off` fails
    await in_thread(relay.strand)
    await in_thread(relay.heal)
    await until(lambda: running.hub.lane.link is not None and running.hub.mirror.link is not None)
    await running.settled()
    assert not await running.differences()
    return int(await in_thread(relay.deliver))


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_a_write_of_a_lost_lane(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        unfenced(monkeypatch)
    relay = relay_to(server_62)
    async with in_process(server_62, server_91, by_source=relay.url) as running:
        await lose_with(running, relay, "SET k late")
        await running.settled()
        found = await running.differences()
    assert [(one.key, one.what) for one in found] == ([] if guarded else [(b"k", What.MISSING)])


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_an_effect_of_a_lost_mirror_link(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        unfenced(monkeypatch)
    relay = relay_to(server_91)
    async with in_process(server_62, server_91, by_target=relay.url) as running:
        await lose_with(running, relay, "RPUSH k late")
        await running.settled()
        found = await running.differences()
    assert [(one.key, one.what) for one in found] == ([] if guarded else [(b"k", What.VALUE)])


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_a_write_of_a_lost_pinned_connection(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys stay held until the connection is known to be dead."""
    if not guarded:
        unfenced(monkeypatch)
    relay = relay_to(server_62)
    async with in_process(server_62, server_91) as running:
        pins_by(running, relay)
        client = await running.client()
        await client.ask("WATCH x", "MULTI", "SET k late")
        await in_thread(relay.hold, Way.TO_SERVER)
        await client.say("EXEC")
        await until(lambda: not running.pin(client).idle)
        await trio.sleep(0.05)
        await in_thread(relay.strand)
        with pytest.raises(HungUp):
            await client.hear()
        await in_thread(relay.heal)
        await running.settled()
        await in_thread(relay.deliver)
        await running.settled()
        found = await running.differences()
    assert [(one.key, one.what) for one in found] == ([] if guarded else [(b"k", What.MISSING)])


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_a_pinned_connection_whose_client_vanished_is_drained(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:

        def drop(self: Pinned) -> None:
            self._orphan = True
            for awaited in self._awaited:
                self._release(awaited.held)
            self._drop()

        monkeypatch.setattr(Pinned, "orphan", drop)
    relay = relay_to(server_62)
    async with in_process(server_62, server_91) as running:
        pins_by(running, relay)
        client = await running.client()
        await client.ask("WATCH x", "MULTI", "SET k late")
        await in_thread(relay.hold, Way.TO_SERVER)
        await client.say("EXEC")
        await until(lambda: not running.pin(client).idle)
        session = client.session
        client.leave()
        await until(lambda: not session.open)
        if not guarded:
            await running.settled()
        await in_thread(relay.heal)
        await until(lambda: server_62.call("EXISTS", "k"))
        await running.settled()
        found = await running.differences()
    assert [one.key for one in found] == ([] if guarded else [b"k"])
