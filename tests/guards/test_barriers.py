"""A session that moves between lane and pinned connection waits until its replies are in.

What is switched off: the wait. Each schedule slows one of the two connections, so that the client's later command, on
the other one, would overtake: the client reads its replies, and the server runs its writes, in another order than sent.
"""

from __future__ import annotations

import pytest

from proxy.pinned import Pinned
from proxy.router import Router
from proxy.session import Session
from resp.encode import encode
from tests.guards.rig import RelayTo, in_thread, pins_by
from tests.inprocess import in_process, until
from tests.relay import Way
from tests.servers import Server

OK, QUEUED, ONE = b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n+OK\r\n"


def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "when_idle", lambda self, action: action())


def lane_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pinned session whose connection carries no state any more uses the lane, whatever it still awaits."""
    plain = Router._on_pin

    def on_pin(self: Router, session, spec, args) -> int:
        pin = session.pin
        if spec.name == b"SET" and not pin.in_multi and not pin.watching:
            self._hub.lane.write(session, spec, args, encode(args), session.last_at)
            return 0
        return plain(self, session, spec, args)

    monkeypatch.setattr(Router, "_on_pin", on_pin)


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_from_the_lane_to_a_pinned_connection(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        no_waiting(monkeypatch)
    lane, pins = relay_to(server_62), relay_to(server_62)
    async with in_process(server_62, server_91, by_source=lane.url) as running:
        pins_by(running, pins)
        client = await running.client()
        await client.ask("PING")
        await in_thread(lane.hold_these, Way.TO_SERVER)
        await client.say("SET k lane", "WATCH k", "MULTI", "SET k pinned", "EXEC")
        if guarded:
            await until(lambda: client.session.deferred is not None)
        else:
            await until(lambda: server_62.call("GET", "k") == b"pinned")
        await in_thread(lane.heal)
        heard = await client.hear(5)
        await running.settled()
        assert not await running.differences()
        last = server_62.call("GET", "k")
    assert (heard == [OK, OK, OK, QUEUED, ONE]) is guarded
    assert last == (b"pinned" if guarded else b"lane")


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_from_a_pinned_connection_to_the_lane(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        lane_at_once(monkeypatch)
    pins = relay_to(server_62)
    async with in_process(server_62, server_91) as running:
        pins_by(running, pins)
        client = await running.client()
        await client.ask("WATCH k", "MULTI", "SET k pinned")
        await in_thread(pins.hold, Way.TO_SERVER)
        await client.say("EXEC", "SET k lane")
        if guarded:
            await until(lambda: client.session.owed == 2)
        else:
            await until(lambda: server_62.call("GET", "k") == b"lane")
        await in_thread(pins.heal)
        heard = await client.hear(2)
        await running.settled()
        assert not await running.differences()
        last = server_62.call("GET", "k")
    if guarded:
        assert (heard, last) == ([ONE, OK], b"lane")
    else:
        assert heard != [ONE, OK]


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_what_the_proxy_answers_itself_waits_its_turn(
    guarded: bool, relay_to: RelayTo, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        no_waiting(monkeypatch)
    lane = relay_to(server_62)
    async with in_process(server_62, server_91, by_source=lane.url) as running:
        client = await running.client()
        await client.ask("SET k v")
        await in_thread(lane.hold, Way.TO_CLIENT)
        await client.say("GET k", "CLIENT GETNAME", "GET k")
        await until(lambda: client.session.owed)
        running.hub.flush()
        await in_thread(lane.heal)
        heard = await client.hear(3)
    value, nil = b"$1\r\nv\r\n", b"$-1\r\n"
    assert heard == ([value, nil, value] if guarded else [nil, value, value])


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_a_connection_that_is_given_back_owes_nothing(
    guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given to the next session too early, it brings along the replies of the former one."""
    if not guarded:
        plain = Pinned._leave_if_clean

        def leave_early(self: Pinned) -> None:
            awaited, self._awaited = self._awaited, type(self._awaited)()
            plain(self)
            if self.session.pin is self:
                self._awaited = awaited

        monkeypatch.setattr(Pinned, "_leave_if_clean", leave_early)
    async with in_process(server_62, server_91) as running:
        client = await running.client()
        await client.ask("WATCH k")
        running.stall(running.pin(client).link)
        link = running.pin(client).link
        await client.say("UNWATCH", "CONFIG GET maxmemory-samples", "CONFIG GET maxmemory")
        await until(lambda: client.session.owed == 3)
        other = await running.client()
        running.go(link)
        await until(lambda: not running.busy or not guarded)
        if guarded:
            assert len(await client.hear(3)) == 3
            assert await other.ask("WATCH other", "UNWATCH", "PING") == [OK, OK, b"+PONG\r\n"]
        else:
            await client.hear(1)
            await until(lambda: client.session.pin is None)
            assert client.session.owed  # for ever
