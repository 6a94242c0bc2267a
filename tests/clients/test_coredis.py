"""coredis under trio, in RESP3: one connection of its pool carries the commands of all tasks at once.

No client retries anything: a lost connection fails the test. What both sides hold is compared at the end (conftest.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import coredis
import pytest
import trio
from coredis.patterns.cache import LRUCache
from coredis.patterns.streams import GroupConsumer

from tests.clients.migration import Migration


def connect(migration: Migration, **options: Any) -> Any:
    return coredis.Redis(host="127.0.0.1", port=migration.port, decode_responses=True, **options)


@pytest.fixture
async def client(migration: Migration) -> AsyncIterator[Any]:
    async with connect(migration) as made:
        yield made


async def together(*work: Callable[[], Awaitable[Any]]) -> None:
    async with trio.open_nursery() as nursery:
        for part in work:
            nursery.start_soon(part)


async def test_many_tasks_on_a_shared_connection(client: Any) -> None:
    async def work(worker: int) -> None:
        for number in range(30):
            await client.hset(f"h:{worker}", {f"f:{number}": str(number)})
            assert await client.incr("shared") > number
            await client.set(f"k:{number}", "v", ex=500)
            async with client.pipeline(transaction=bool(number % 2)) as pipeline:
                length = pipeline.rpush(f"l:{worker}", [str(number)])
                item = pipeline.lindex(f"l:{worker}", number)
            assert (await length, await item) == (number + 1, str(number))

    async with trio.open_nursery() as nursery:
        for worker in range(8):
            nursery.start_soon(work, worker)
    assert await client.get("shared") == "240"


async def test_watch(client: Any) -> None:
    await client.set("balance", 0)

    async def increment(pipeline: Any) -> None:
        value = int(await client.get("balance"))
        pipeline.set("balance", value + 1)

    async def work() -> None:
        for _ in range(10):
            await client.transaction(increment, "balance")

    await together(work, work, work)
    assert await client.get("balance") == "30"


async def test_pubsub(client: Any) -> None:
    heard: list[int] = []
    async with client.pubsub(channels=["news"], patterns=["news:*"], ignore_subscribe_messages=True) as subscriber:

        async def publish() -> None:
            for number in range(100):
                assert await client.publish("news:x" if number % 2 else "news", str(number)) == 1

        async def listen() -> None:
            with trio.fail_after(20):
                async for message in subscriber:
                    heard.append(int(message["data"]))
                    if len(heard) == 100:
                        return

        await together(publish, listen)
    assert heard == list(range(100))


async def test_streams(client: Any) -> None:
    """Two members of a consumer group, with coredis' own consumers."""
    done: list[str] = []
    async with (
        GroupConsumer(client, ["log"], "group", "one", auto_create=True, timeout=3000) as one,
        GroupConsumer(client, ["log"], "group", "two", auto_create=True, timeout=3000) as two,
    ):

        async def write() -> None:
            for number in range(60):
                await client.xadd("log", {"n": str(number)})
            for _ in range(2):
                await client.xadd("log", {"n": "end"})

        async def read(consumer: Any) -> None:
            while True:
                _, entry = await consumer.get_entry()
                done.append(entry.field_values["n"])
                assert await client.xack("log", "group", [entry.identifier]) == 1
                if entry.field_values["n"] == "end":
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, one)
            nursery.start_soon(read, two)
            await write()
    assert Counter(done) == Counter([*map(str, range(60)), "end", "end"])
    assert (await client.xpending("log", "group")).pending == 0


async def test_queues_locks_and_scripts(client: Any) -> None:
    script = client.register_script("return {redis.call('INCR', KEYS[1]), redis.call('RPUSH', KEYS[2], ARGV[1])}")
    taken: list[str] = []

    async def produce() -> None:
        for number in range(60):
            assert (await script(keys=["produced", "queue"], args=[str(number)]))[0] == number + 1

    async def consume() -> None:
        for _ in range(20):
            _, item = await client.blpop(["nothing", "queue"], timeout=10)
            async with client.lock("lock", timeout=20, sleep=0.005):
                await client.set("taken", str(int(await client.get("taken") or 0) + 1))
            taken.append(item)

    await together(produce, consume, consume, consume)
    assert Counter(taken) == Counter(map(str, range(60)))
    assert await client.get("taken") == "60"


@pytest.mark.versions("redis-7.0", "valkey-9.1")
async def test_client_side_cache(migration: Migration) -> None:
    """coredis has the invalidations of all its connections sent to one more (CLIENT TRACKING ... REDIRECT)."""
    cache = LRUCache()
    async with connect(migration, cache=cache) as cached, connect(migration) as other:
        seen = []
        for number in range(100):
            await other.set("version", str(number))
            seen += [int(await cached.get("version") or 0) for _ in range(5)]
        assert seen == sorted(seen)
        with trio.fail_after(10):
            while await cached.get("version") != "99":
                await trio.sleep(0.01)
        assert cache.stats.summary["hits"] > 0
