"""redis-py and valkey-py under asyncio: one application whose tasks do everything at once, over a few connections.

No client retries anything: a lost connection fails the test. What both sides hold is compared at the end (conftest.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import valkey.asyncio
import valkey.asyncio.retry
import valkey.backoff

from tests.clients.migration import Migration

LIBRARIES: dict[str, ModuleType] = {"redis-py": redis, "valkey-py": valkey}
WAYS = [
    ("redis-py", 2, "at rest"),
    ("redis-py", 2, "flipping"),
    ("redis-py", 3, "flipping"),
    ("valkey-py", 3, "at rest"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = ["-".join(map(str, way)) for way in WAYS]
    metafunc.parametrize(("library", "resp", "migration"), WAYS, ids=names, indirect=["migration"])


class Application:
    """`client`: for what is answered at once. `waiting`: connections that block. `single`: one connection."""

    def __init__(self, client: Any, waiting: Any, single: Any) -> None:
        self.client, self.waiting, self.single = client, waiting, single

    async def count(self) -> None:
        for _ in range(40):
            async with self.client.pipeline(transaction=False) as pipeline:
                for number in range(10):
                    pipeline.incr("count").zincrby("scores", 1, f"player:{number}").set(
                        f"session:{number}", "v", ex=600
                    )
                await pipeline.execute()
        assert await self.client.get("count") == "400"
        assert {await self.client.zscore("scores", f"player:{number}") for number in range(10)} == {40}

    async def transfer(self) -> None:
        """Money moves between two accounts by WATCH; the sum stays."""
        await self.client.mset({"account:a": 1000, "account:b": 1000})

        async def pay(pipeline: Any) -> None:
            a, b = await pipeline.mget("account:a", "account:b")
            pipeline.multi()
            pipeline.mset({"account:a": int(a) - 1, "account:b": int(b) + 1})

        async def customer() -> None:
            for _ in range(10):
                await self.client.transaction(pay, "account:a", "account:b")

        await asyncio.gather(*[customer() for _ in range(3)])
        assert await self.client.mget("account:a", "account:b") == ["970", "1030"]

    async def pass_on(self) -> None:
        """Items go through two queues, and every one arrives once."""
        total, arrived = 80, []

        async def produce() -> None:
            for number in range(total):
                await self.client.rpush("first", number)

        async def carry() -> None:
            for _ in range(total // 2):
                assert await self.waiting.blmove("first", "second", 10) is not None

        async def consume() -> None:
            for _ in range(total // 2):
                arrived.append((await self.waiting.brpop(["nothing", "second"], 10))[1])

        await asyncio.gather(consume(), consume(), carry(), carry(), produce())
        assert Counter(arrived) == Counter(map(str, range(total)))

    async def talk(self) -> None:
        """Pub/sub: each message once and in order."""
        heard: list[int] = []
        async with self.client.pubsub() as subscriber:
            await subscriber.subscribe("chat")
            await subscriber.psubscribe("chat:*")
            for _ in range(2):
                assert await subscriber.get_message(timeout=5)

            async def say() -> None:
                for number in range(100):
                    assert await self.client.publish("chat:x" if number % 2 else "chat", number) == 1

            async def hear() -> None:
                while len(heard) < 100:
                    message = await subscriber.get_message(timeout=10)
                    assert message is not None, f"only {len(heard)} messages"
                    heard.append(int(message["data"]))

            await asyncio.gather(say(), hear())
        assert heard == list(range(100))

    async def guard(self) -> None:
        await self.client.set("guarded", 0)

        async def enter() -> None:
            for _ in range(8):
                async with self.client.lock("lock", timeout=20, sleep=0.005):
                    await self.client.set("guarded", int(await self.client.get("guarded")) + 1)

        await asyncio.gather(enter(), enter(), enter())
        assert await self.client.get("guarded") == "24"

    async def stream(self) -> None:
        await self.client.xgroup_create("log", "readers", "$", mkstream=True)
        done: list[str] = []

        async def write() -> None:
            for number in range(80):
                await self.client.xadd("log", {"n": number})
            for _ in range(2):
                await self.client.xadd("log", {"n": "end"})

        async def read(name: str) -> None:
            while True:
                reply = await self.waiting.xreadgroup("readers", name, {"log": ">"}, count=1, block=10_000)
                entries = reply["log"][0] if isinstance(reply, dict) else reply[0][1]
                for ident, fields in entries:
                    done.append(fields["n"])
                    assert await self.client.xack("log", "readers", ident) == 1
                if entries[-1][1]["n"] == "end":
                    return

        await asyncio.gather(write(), read("one"), read("two"))
        assert Counter(done) == Counter([*map(str, range(80)), "end", "end"])

    async def script(self) -> None:
        script = self.client.register_script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
        for number in range(1, 50):
            assert await script(keys=["scripted"], args=[number]) == number

    async def look(self) -> None:
        await self.client.mset({f"here:{number}": "v" for number in range(500)})
        found = {name async for name in self.client.scan_iter(match="here:*", count=10)}
        assert len(found) == 500

    async def cancel(self) -> None:
        """A task that is cancelled while its client waits: the library drops that connection, and goes on. It really
        waits: a cancellation that comes while the libraries connect, or look after a connection, they may lose."""
        last = 0
        for number in range(5):
            assert await self.single.ping()
            waiter = asyncio.ensure_future(self.single.blpop("rarely", 30))
            last = await self._waits_since(last, waiter)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert await self.client.incr("cancelled") == number + 1

    async def _waits_since(self, last: int, waiter: asyncio.Future[Any]) -> int:
        """The id of the connection on which it waits in BLPOP; each time it is a new one."""
        while True:
            assert not waiter.done(), "it does not wait"
            for entry in await self.client.client_list():
                if entry["cmd"] == "blpop" and int(entry["id"]) > last:
                    return int(entry["id"])


@asynccontextmanager
async def application(library: ModuleType, resp: int, port: int) -> AsyncIterator[Application]:
    room = library.asyncio
    kind = room.Redis if library is redis else room.Valkey

    def pool(connections: int) -> Any:
        retry = room.retry.Retry(library.backoff.NoBackoff(), 0)
        options: dict[str, Any] = {"protocol": resp, "decode_responses": True, "health_check_interval": 0.05}
        return room.BlockingConnectionPool(
            host="127.0.0.1", port=port, max_connections=connections, timeout=20, retry=retry, **options
        )

    async with (
        kind.from_pool(pool(6)) as client,
        kind.from_pool(pool(10)) as waiting,
        kind.from_pool(pool(1)) as single,
    ):
        yield Application(client, waiting, single)


def test_one_application(migration: Migration, library: str, resp: int) -> None:
    async def run() -> None:
        async with application(LIBRARIES[library], resp, migration.port) as app, asyncio.TaskGroup() as tasks:
            for part in (app.count, app.transfer, app.pass_on, app.talk, app.guard):
                tasks.create_task(part())
            for part in (app.stream, app.script, app.look, app.cancel):
                tasks.create_task(part())

    asyncio.run(run())
