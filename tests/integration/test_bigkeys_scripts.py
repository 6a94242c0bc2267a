"""Big keys beside scripts and transactions that run all the time: copied all the same, and equal in the end.

What a script writes without declaring it, only the watch sees, and that cannot tell whose change it was. So it is
suspected (proxy/suspects.py), which must neither hold up a copy for ever nor miss a change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio

from proxy.flip import Outcome, Terms
from proxy.jobs import Jobs
from proxy.verifying import Verifying
from tests.inprocess import Client, InProcess, until
from tests.integration.test_bigkeys import backfill, fill, proxy_for_big_keys, small_pages
from tests.servers import Pool

__all__ = ["small_pages"]

BIG = (0, b"big")
COUNT = 6000
COUNTER = [b"EVAL", b"return redis.call('INCR', KEYS[1])", b"1", b"counter"]
DECLARED = [b"EVAL", b"return redis.call('ZINCRBY', KEYS[1], 1, ARGV[1])", b"1", b"big"]
UNDECLARED = [b"EVAL", b"return redis.call('ZINCRBY', 'big', 1, ARGV[1])", b"0"]

Turn = Callable[[Client, bytes], Awaitable[object]]


async def plain(client: Client, member: bytes) -> None:
    await client.ask([b"ZINCRBY", b"big", b"1", member])


async def script(client: Client, member: bytes) -> None:
    await client.ask([*COUNTER, member])


async def block(client: Client, member: bytes) -> None:
    await client.ask([b"MULTI"], [*COUNTER, member], [b"EXEC"])


async def declared(client: Client, member: bytes) -> None:
    await client.ask([*DECLARED, member])


async def watching(client: Client, member: bytes) -> None:
    await client.ask([b"WATCH", b"big"])
    await client.ask([b"MULTI"], [b"ZINCRBY", b"big", b"1", member])
    await client.ask([b"EXEC"])


@asynccontextmanager
async def busy(server_pool: Pool, *turns: Turn, source: str = "redis-6.2") -> AsyncIterator[InProcess]:
    """A proxy in front of a big sorted set, and clients that take their turns all the time. At the end they stop, and
    both sides are equal."""
    a, b = server_pool.get(source), server_pool.get("valkey-9.1")
    fill(a.client(), "zset", "big", COUNT)
    async with proxy_for_big_keys(a, b, watch=True) as running:
        stopped = False

        async def take_turns(turn: Turn, client: Client) -> None:
            for number in count():
                if stopped:
                    return
                await turn(client, b"member:%07d" % (number * 7 % COUNT))

        async with trio.open_nursery() as nursery:
            for turn in turns:
                nursery.start_soon(take_turns, turn, await running.client())
            yield running
            stopped = True
        await running.settled()
        assert not await running.differences()


async def flip(running: InProcess, max_pause_ms: float) -> Outcome:
    async with trio.open_nursery() as nursery:
        outcome = await Jobs(running.proxy, nursery).flip(Terms(skip_verify=True, max_pause_ms=max_pause_ms))
        nursery.cancel_scope.cancel()
    return outcome


@pytest.mark.parametrize("source", ["redis-6.2", "redis-8.2"])
async def test_scripts_that_do_not_touch_it_do_not_hold_it_up(server_pool: Pool, source: str) -> None:
    async with busy(server_pool, plain, script, source=source) as running:
        await backfill(running)
        await until(lambda: BIG not in running.hub.repair.keys, "clean, while everybody goes on writing")
        assert BIG in running.hub.suspects
        verifying = Verifying(running.proxy)
        await verifying.run()
        assert (verifying.report.state, verifying.report.different) == ("done", 0), verifying.report


@pytest.mark.parametrize("turn", [block, declared, watching])
async def test_the_backfill_ends_and_a_flip_succeeds_beside(server_pool: Pool, turn: Turn) -> None:
    """What they write without an order keeps the key dirty or lagging; everything has been copied once."""
    async with busy(server_pool, plain, turn) as running:
        filling = await backfill(running)
        assert filling.progress.copied == filling.progress.scanned
        outcome = await flip(running, max_pause_ms=10_000)
        assert outcome.flipped, outcome  # in its pause the key becomes equal


async def test_a_pause_that_is_too_short_for_its_copy(server_pool: Pool) -> None:
    async with busy(server_pool, plain) as running:
        await backfill(running)
        copies = running.hub.repair.copies_in_pages
        read = copies.pages
        copies.may_read = lambda: copies.pages < read + 2
        running.hub.repair.mark_unordered(BIG, "in the middle of its copy", lag=True)
        outcome = await flip(running, max_pause_ms=50)
        assert not outcome.flipped
        assert "db 0 'big' is being copied in pages" in outcome.reasons[0], outcome
        copies.may_read = lambda: True
        running.hub.flush()


async def test_a_script_writes_it_unseen(server_pool: Pool) -> None:
    async with busy(server_pool, plain, script) as running:
        await backfill(running)
        await until(lambda: BIG not in running.hub.repair.keys, "clean")
        client = await running.client()
        before = running.hub.repair.copies
        await client.ask([*UNDECLARED, b"by a script"], [*COUNTER, b""])
        await until(lambda: BIG in running.hub.repair.keys or running.hub.repair.copies > before, "noticed")


async def test_a_script_writes_it_unseen_and_nobody_else_does_anything(server_pool: Pool) -> None:
    async with busy(server_pool) as running:
        client = await running.client()
        await client.ask([b"ZINCRBY", b"big", b"1", b"first"])
        await backfill(running)
        assert BIG in running.hub.suspects
        await client.ask([*UNDECLARED, b"by a script"])


async def test_a_busy_key_is_not_copied_at_every_write_beside_scripts(server_pool: Pool) -> None:
    async with busy(server_pool) as running:
        await backfill(running)
        client = await running.client()
        repair = running.hub.repair

        async def some() -> None:
            for _ in range(100):
                await client.ask([b"EVAL", b"return 1", b"0"], [b"INCR", b"busy"])

        await some()
        assert (0, b"busy") in running.hub.suspects
        await until(lambda: (0, b"busy") not in repair.keys, "clean")
        before = repair.copies
        await some()
        await running.settled()
        assert repair.copies == before
        await client.ask([b"EVAL", b"return redis.call('INCR', 'busy')", b"0"], [b"INCR", b"busy"])
        await running.settled()
        assert repair.copies > before


async def test_watch_is_refused(server_pool: Pool) -> None:
    """Nobody can be asked: the key is copied again and again, as the watch sees it change."""
    server = server_pool.get("redis-6.2")
    async with busy(server_pool, plain, script) as running:
        server.call("ACL", "SETUSER", "default", "-watch")
        try:
            await backfill(running)
            await until(lambda: not running.hub.suspects, "nobody is asked")
            client = await running.client()
            await client.ask([*UNDECLARED, b"by a script"])
        finally:
            server.call("ACL", "SETUSER", "default", "+@all")
