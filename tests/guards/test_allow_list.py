"""Invariant 10: the lane takes what our own table knows to be free of connection state; so it is inside MULTI, too.

What is switched off: the screening of a block's commands, or of single commands. The harm is done to another client,
whose commands share the lane.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from proxy.lane import Block
from proxy.router import Router
from resp.catalog import Route
from tests.inprocess import Client, HungUp, in_process, until
from tests.servers import Server

NEVER_S = 1.0  # what has not come by then does not come


def unscreened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block that is here to its EXEC goes down the lane."""

    def whole_block(self: Router, rest):
        commands: list[Any] = []
        for args in rest:
            if args[0].upper() == b"EXEC":
                return Block(commands)
            commands.append((self.catalog.lookup(args), args))
        return None

    monkeypatch.setattr(Router, "_whole_block", whole_block)


COMMANDS = ("SET mine 1", "GET mine", "GET nothing", "MULTI", "INCR mine", "EXEC")
FINE = [b"+OK\r\n", b"$1\r\n1\r\n", b"$-1\r\n", b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n:2\r\n"]
FINE_RESP3 = [b"_\r\n" if frame == b"$-1\r\n" else frame for frame in FINE]


async def bystander(client: Client) -> list[bytes]:
    """What an innocent client hears; nothing at all counts, too."""
    await client.say(*COMMANDS)
    with trio.move_on_after(NEVER_S), suppress(HungUp):
        return await client.hear(len(COMMANDS))
    return client.heard()


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
@pytest.mark.parametrize(
    ("inside", "resp"),
    [
        ("SELECT 5", 2),
        ("SUBSCRIBE c", 2),
        ("PSUBSCRIBE c*", 2),
        ("CLIENT REPLY OFF", 2),
        ("CLIENT REPLY SKIP", 2),
        ("HELLO 3", 2),
        ("HELLO 2", 3),
        ("RESET", 3),
    ],
)
async def test_state_inside_a_block(
    inside: str, resp: int, guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = FINE if resp == 2 else FINE_RESP3
    if not guarded:
        unscreened(monkeypatch)
    async with in_process(server_62, server_91, sound=guarded) as running:
        client, other = await running.client(resp), await running.client(resp)
        await other.ask("PING")
        await client.say("MULTI", inside, "EXEC")
        await until(lambda: client.session.last_command)
        heard = await bystander(other)
        there = server_62.call("GET", "mine", db=0)
        if guarded:
            assert heard == fine
            assert there == b"2"
            await running.settled()
            assert not await running.differences()
        else:
            assert (heard, there) != (fine, b"2")


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
@pytest.mark.parametrize(
    "alone", ["SUBSCRIBE c", "MONITOR", "WATCH mine", "CLIENT REPLY OFF", "BLPOP nothing 0", "MULTI"]
)
async def test_state_without_a_block(alone: str, guarded: bool, server_62: Server, server_91: Server) -> None:
    async with in_process(server_62, server_91, sound=guarded) as running:
        if not guarded:
            spec = running.hub.router.catalog.lookup(alone.encode().split())
            spec.route = Route.READ
        client, other = await running.client(), await running.client()
        await other.ask("PING")
        await client.say(alone)
        await until(lambda: client.session.last_command)
        assert (await bystander(other) == FINE) is guarded


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_a_command_that_only_the_server_knows(
    guarded: bool, start_server: Callable[..., Server], server_91: Server
) -> None:
    """Under a name that our table does not have, SUBSCRIBE is as good as a module's command."""
    source = start_server("redis-6.2", config={"rename-command SUBSCRIBE": "LISTEN.TO"})
    async with in_process(source, server_91, sound=guarded) as running:
        catalog = running.hub.router.catalog
        spec = catalog.lookup([b"LISTEN.TO", b"c"])
        assert spec.route is Route.PINNED
        if not guarded:
            spec.route = Route.READ
            catalog.by_name[b"LISTEN.TO"] = spec
        client, other = await running.client(), await running.client()
        await client.say("LISTEN.TO c")
        await until(lambda: client.session.last_command)
        assert (await bystander(other) == FINE) is guarded


async def test_blocking_inside_a_block(server_62: Server, server_91: Server) -> None:
    """Inside MULTI nothing blocks: such a block may go down the lane, and nobody waits for it."""
    async with in_process(server_62, server_91) as running:
        client, other = await running.client(), await running.client()
        replies = await client.ask("MULTI", "BLPOP nothing 0", "XREAD BLOCK 0 STREAMS nothing $", "RPUSH l a", "EXEC")
        assert replies[-1] == b"*3\r\n*-1\r\n*-1\r\n:1\r\n"
        assert client.session.pin is None
        assert await bystander(other) == FINE
        await running.settled()
        assert not await running.differences()


@pytest.mark.parametrize("command", ["MOVE k 99", "COPY k k DB 99"])
async def test_a_db_that_there_is_not(command: str, server_62: Server, server_91: Server) -> None:
    """A key that a pinned command names in such a db must not be looked for by the lane."""
    async with in_process(server_62, server_91) as running:
        client, other = await running.client(), await running.client()
        link = running.hub.lane.link
        await client.ask("SET k v", "WATCH k")
        assert (await client.ask(command))[0].startswith(b"-ERR")
        await running.settled()
        assert await bystander(other) == FINE
        assert running.hub.lane.link is link
        await running.settled()
        assert not await running.differences()
