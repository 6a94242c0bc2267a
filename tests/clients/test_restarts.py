"""Clients that try again, as most do by default, over a restart: of the source, of the target, of the proxy.

The source keeps its data (AOF, every write). What was acknowledged must be there, and no error reaches the application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry
import valkey
import valkey.backoff
import valkey.retry
from redis.backoff import ExponentialBackoff

from tests.clients.migration import Migration
from tests.proxies import until
from tests.servers import Pool, Server

DURABLE = {"appendonly": "yes", "appendfsync": "always"}


class Steps:
    """Writers that count what was acknowledged, and go on until told to stop."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.stopping = False

    def write(self, name: str, client: Any) -> None:
        number = 0
        while not self.stopping:
            with client.pipeline() as pipeline:
                pipeline.sadd(f"{name}:members", number).set(f"{name}:last", number).hset(
                    "hash", name, number
                ).execute()
            assert client.sismember(f"{name}:members", number)
            self.acknowledged[name] = number
            number += 1

    async def write_async(self, name: str, client: Any) -> None:
        number = 0
        while not self.stopping:
            await client.sadd(f"{name}:members", number)
            await client.set(f"{name}:last", number)
            self.acknowledged[name] = number
            number += 1

    def pop(self, client: Any) -> list[int]:
        """It waits in BLPOP while the restart comes; there is nothing to be taken until the end."""
        _, item = client.blpop(["nothing", "at the end"], 20)
        return [int(item)]


@pytest.fixture
def durable(server_pool: Pool, start_server: Callable[..., Server]) -> Iterator[Migration]:
    source = start_server("redis-6.2", config=DURABLE)
    with Migration(source, server_pool.get("valkey-9.1")) as running:
        yield running


def patient(library: ModuleType = redis) -> dict[str, Any]:
    """As a README recommends: ten tries, half a second between them at most. Also of connecting itself: valkey-py's
    pipelines connect outside of what is tried again, and while nobody listens that is a ConnectionRefusedError."""
    retry = library.retry.Retry(library.backoff.ExponentialBackoff(cap=0.5, base=0.02), 10)
    errors = [library.ConnectionError, library.TimeoutError, ConnectionRefusedError]
    return {"retry": retry, "retry_on_error": errors, "decode_responses": True}


@pytest.mark.parametrize("which", ["source", "target", "proxy"])
def test_clients_that_try_again(durable: Migration, which: str) -> None:
    steps = Steps()
    address: dict[str, Any] = {"host": "127.0.0.1", "port": durable.port}
    heard: list[str] = []
    with (
        redis.Redis(**address, **patient(), health_check_interval=1) as one,
        valkey.Valkey(**address, **patient(valkey), protocol=3) as two,
        redis.Redis(**address, **patient(), socket_timeout=None) as waiting,
        ThreadPoolExecutor() as pool,
        one.pubsub(ignore_subscribe_messages=True) as subscriber,
    ):
        subscriber.subscribe(news=lambda message: heard.append(message["data"]))
        listener = subscriber.run_in_thread(sleep_time=0.01, daemon=True, exception_handler=go_on)
        working: list[Future[Any]] = [
            pool.submit(steps.write, "redis-py", one),
            pool.submit(steps.write, "valkey-py", two),
            pool.submit(asyncio.run, write_asyncio(steps, address)),
        ]
        popped = pool.submit(steps.pop, waiting)
        try:
            progress(steps, working)
            restart(durable, which)
            progress(steps, working)
            until(lambda: one.publish("news", "back") and heard, "the subscriber is back")
            one.rpush("at the end", 1)
            assert popped.result(20) == [1]
        finally:
            steps.stopping = True
            listener.stop()
        for done in working:
            done.result(20)
        listener.join()
        for name, last in steps.acknowledged.items():
            assert one.get(f"{name}:last") == str(last)
            assert one.scard(f"{name}:members") >= last + 1


def go_on(problem: BaseException, subscriber: Any, thread: Any) -> None:
    """The subscriber connects and subscribes again with its next read."""
    assert isinstance(problem, redis.ConnectionError), problem


async def write_asyncio(steps: Steps, address: dict[str, Any]) -> None:
    retry = redis.asyncio.retry.Retry(ExponentialBackoff(cap=0.5, base=0.02), 10)
    async with redis.asyncio.Redis(**address, retry=retry, decode_responses=True) as client:
        await steps.write_async("asyncio", client)


def progress(steps: Steps, working: list[Future[Any]]) -> None:
    """Until everybody has got something done. A worker that has failed says why."""
    before = dict(steps.acknowledged)

    def everybody() -> bool:
        for done in working:
            if done.done():
                done.result()
        now = steps.acknowledged
        return len(now) == len(working) and all(now[name] > before.get(name, 0) + 5 for name in now)

    until(everybody, f"progress: {before}")


def restart(migration: Migration, which: str) -> None:
    if which == "proxy":
        migration.proxy.restart()
    else:
        server = migration.source if which == "source" else migration.target
        server.restart()
