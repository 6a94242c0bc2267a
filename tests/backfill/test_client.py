"""The client and the scan on real servers: replies stay with their calls whatever is given up, lost or huge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from backfill.client import Client, ConnectionLost, ReplyError, command_names
from backfill.errors import ScanError
from backfill.scan import START, databases, scan, scan_page, select
from backfill.url import Url
from tests.servers import Server


@asynccontextmanager
async def opened(server: Server, **options: Any) -> AsyncIterator[Client]:
    async with Client.open(Url(host="127.0.0.1", port=server.port), **options) as client:
        yield client


async def test_replies_errors_and_transactions(server_62: Server) -> None:
    async with opened(server_62) as client:
        assert await client.call(b"SET", b"k", b"v") == b"OK"
        replies = await client.pipeline([[b"GET", b"k"], [b"INCR", b"k"], [b"NOSUCH"], [b"GET", b"k"]])
        assert replies[0] == replies[3] == b"v"
        assert isinstance(replies[1], ReplyError)
        assert str(replies[2]).startswith("ERR unknown command")
        assert await client.transaction([[b"GET", b"k"], [b"PTTL", b"k"]]) == [b"v", -1]
        assert isinstance(await client.transaction([[b"NOSUCH"]]), ReplyError)
        assert await client.pipeline([]) == []
        assert "open" in repr(client)


async def test_callers_take_turns(server_62: Server) -> None:
    async with opened(server_62) as client, trio.open_nursery() as nursery:

        async def echo(number: int) -> None:
            for index in range(20):
                text = b"%d %d" % (number, index)
                assert await client.call(b"ECHO", text) == text

        for number in range(10):
            nursery.start_soon(echo, number)


async def test_more_than_all_buffers_hold_in_both_directions(server_62: Server) -> None:
    """Sending must not wait for the end of sending before it reads."""
    value = bytes(range(256)) * 4096
    async with opened(server_62) as client:
        assert await client.pipeline([[b"ECHO", value]] * 32) == [value] * 32


@pytest.mark.parametrize("resp", [2, 3])
async def test_pushes_are_not_replies(server_62: Server, resp: int) -> None:
    async with opened(server_62, resp=resp) as client, opened(server_62) as other:
        if resp == 3:
            assert await client.call(b"CLIENT", b"TRACKING", b"ON", b"BCAST") == b"OK"
        await other.call(b"SET", b"k", b"v")
        for _ in range(3):
            assert await client.call(b"GET", b"k") == b"v"


async def test_a_call_that_was_given_up_closes_the_connection(server_62: Server) -> None:
    async with opened(server_62) as client:
        with trio.move_on_after(0.05) as scope:
            await client.call(b"BLPOP", b"nothing", b"0")
        assert scope.cancelled_caught
        with pytest.raises(ConnectionLost, match="lost"):
            await client.call(b"GET", b"k")


async def test_a_server_that_does_not_reply_in_time(server_62: Server) -> None:
    async with opened(server_62, reply_timeout=0.05) as client:
        with pytest.raises(ConnectionLost, match=r"no reply within 0.05 s"):
            await client.call(b"BLPOP", b"nothing", b"0")


async def test_a_killed_connection(server_62: Server) -> None:
    value = bytes(1 << 20)
    async with opened(server_62) as client, opened(server_62) as other:
        ident = b"%d" % client.wire.client_id
        assert await other.call(b"CLIENT", b"KILL", b"ID", ident) == 1
        with pytest.raises(ConnectionLost) as caught:
            await client.pipeline([[b"ECHO", value]] * 32)
        assert caught.value.text.splitlines() == [caught.value.text]


async def test_closing_wakes_a_caller(server_62: Server) -> None:
    async with opened(server_62) as client, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(ConnectionLost):
                await client.call(b"BLPOP", b"nothing", b"0")

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        client.close()


async def test_names_of_commands(server_62: Server, server_82: Server) -> None:
    async with opened(server_62) as old, opened(server_82) as new:
        old_names, new_names = [command_names(await client.call(b"COMMAND")) for client in (old, new)]
        assert {b"GET", b"XGROUP"} <= old_names
        assert {b"GET", b"XGROUP", b"XGROUP CREATE", b"HPEXPIREAT"} <= new_names
        assert not {b"XGROUP CREATE", b"HPEXPIREAT"} & old_names


# --- scan ---


async def test_scan_sees_every_key_of_its_db(server_62: Server) -> None:
    with server_62.client(db=3) as view:
        keys = {b"key %d" % index for index in range(5000)} | {bytes(range(256))}
        view.mset(dict.fromkeys(keys, b"v"))
    async with opened(server_62) as client:
        assert [page async for page in scan(client)] == []
        await select(client, 3)
        pages = [page async for page in scan(client, count=100)]
        assert all(pages) and len(pages) > 10
        assert {key for page in pages for key in page} == keys
        found = {key async for page in scan(client, match=b"key 12*") for key in page}
        assert len(found) == 111
        assert await databases(client) == {3: 5001}


async def test_pages_can_be_taken_up_where_they_ended(server_62: Server) -> None:
    with server_62.client() as view:
        view.mset({b"%d" % index: b"v" for index in range(1000)})
    async with opened(server_62) as client:
        cursor, found, steps = START, set(), 0
        while steps == 0 or cursor != START:
            page = await scan_page(client, cursor, count=50)
            cursor, steps = page.cursor, steps + 1
            found.update(page.keys)
        assert len(found) == 1000
        assert steps > 5


async def test_refusals_of_scan(start_server: Callable[..., Server]) -> None:
    server = start_server("redis-7.0", config={"databases": "2"})
    async with opened(server) as client:
        with pytest.raises(ScanError, match="DB index is out of range"):
            await select(client, 2)
        assert await databases(client) == {}
        server.call("ACL", "SETUSER", "default", "-scan")
        with pytest.raises(ScanError, match="NOPERM"):
            await scan_page(client)
