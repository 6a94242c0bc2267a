"""Job queues that people run, with their own workers, at rest and through flips: no job is lost, none is done twice.

rq: blocking lists, MULTI and WATCH, pub/sub. dramatiq: Lua that makes up its keys. streaQ: streams, consumer groups,
functions. BullMQ is in test_node.py.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import redis
import rq
import trio
from dramatiq.brokers.redis import RedisBroker
from rq.results import Result
from streaq import Worker

from tests.clients.jobs import DONE, URL, note
from tests.clients.migration import Migration
from tests.proxies import ROOT, until


def assert_each_once(done: list[Any], total: int) -> None:
    counted = Counter(map(int, done))
    lost = set(range(total)) - set(counted)
    doubled = [number for number, times in counted.items() if times > 1]
    assert not lost and not doubled, f"lost: {sorted(lost)}, done more than once: {sorted(doubled)}"


# --- rq ---


@contextmanager
def rq_workers(migration: Migration, count: int) -> Iterator[None]:
    """They wait in BLPOP or BLMOVE for work, until they are told to stop."""
    command = [sys.executable, "-W", "ignore", "-m", "rq.cli", "worker", "--quiet", "--url", migration.url]
    command += ["--worker-class", "rq.worker.SimpleWorker", "urgent", "default"]
    environment = {**os.environ, URL: migration.url}
    workers = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        said = [worker.communicate(timeout=20)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * count, said
    assert not any("Traceback" in text for text in said), said


def test_rq(migration: Migration) -> None:
    total = 60
    with rq_workers(migration, 2), migration.client() as client:
        until(lambda: rq.Worker.count(connection=client) == 2, "two workers")
        queues = [rq.Queue(name, connection=client) for name in ("default", "urgent")]
        jobs = [queues[number % 2].enqueue(note, number) for number in range(total // 2)]
        migration.midway()
        batch = [rq.Queue.prepare_data(note, [number]) for number in range(total // 2, total)]
        jobs += queues[0].enqueue_many(batch)
        until(lambda: client.llen(DONE) >= total, "all jobs done", 30)
        until(lambda: all(job.get_status(refresh=True) == "finished" for job in jobs), "all jobs finished")
        assert_each_once(client.lrange(DONE, 0, -1), total)
        results = [Result.fetch_latest(job) for job in jobs]
        assert [result and result.return_value for result in results] == [number**2 for number in range(total)]
        assert all(len(queue) == 0 and len(queue.started_job_registry) == 0 for queue in queues)
        assert sum(len(queue.finished_job_registry) for queue in queues) == total
    assert rq.Worker.count(connection=migration.client()) == 0


# --- dramatiq ---

MAKE_UP = "local name = 'made:' .. ARGV[1] redis.call('RPUSH', name, ARGV[1]) return redis.call('LLEN', name)"


def test_scripts_that_make_up_their_keys(migration: Migration) -> None:
    """What dramatiq, BullMQ and others do: no key is declared, all the same the sides must become equal."""
    with migration.client(db=1) as client:
        script = client.register_script(MAKE_UP)
        for number in range(40):
            if number % 20 == 10:
                migration.midway()
            assert script(args=[number % 7]) == number // 7 + 1
            client.rpush(f"made:{number % 7}:log", number)


def test_dramatiq(migration: Migration, caplog: pytest.LogCaptureFixture) -> None:
    total = 150
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    broker = RedisBroker(host="127.0.0.1", port=migration.port, retry=retry, heartbeat_timeout=5_000)
    broker.emit_after("process_boot")
    failed: list[int] = []
    caplog.set_level(logging.CRITICAL, logger="dramatiq")  # it tells of each failed try
    with closing(broker), migration.client() as client:

        @dramatiq.actor(broker=broker, max_retries=3, min_backoff=10, max_backoff=20)
        def record(number: int) -> None:
            if number % 10 == 0 and number not in failed:
                failed.append(number)
                raise ValueError("the first try of every tenth fails, and goes through the delay queue")
            client.rpush(DONE, number)

        worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=4)
        worker.start()
        try:
            for number in range(total):
                record.send(number)
                if number % 50 == 20:
                    migration.midway()
            until(lambda: client.llen(DONE) >= total, "all jobs done", 30)
            broker.join(record.queue_name, timeout=20_000)
        finally:
            worker.stop()
        assert_each_once(client.lrange(DONE, 0, -1), total)
        assert not client.keys("dramatiq:*.msgs"), "nothing is left in a queue"


# --- streaQ ---


@pytest.fixture
def swept() -> Iterator[None]:
    """A cancelled worker of streaQ leaves a memory channel open: it is collected here, not in somebody else's test."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")
@pytest.mark.versions("redis-7.0", "valkey-9.1")
async def test_streaq(migration: Migration, swept: None) -> None:
    """On trio, as coredis under it."""
    total = 80
    done: list[int] = []
    workers = [
        Worker(redis_url=migration.url, handle_signals=False, concurrency=4, id=f"worker-{number}")
        for number in range(2)
    ]
    registered = []
    for worker in workers:

        @worker.task(name="record")
        async def record(number: int) -> int:
            done.append(number)
            return number * number

        registered.append(record)
    async with trio.open_nursery() as nursery:
        for worker in workers:
            await nursery.start(worker.run_async)
        await workers[0].enqueue_many([registered[0].enqueue(number) for number in range(total // 2)])
        await trio.to_thread.run_sync(migration.midway)
        tasks = [registered[0].enqueue(number) for number in range(total // 2, total)]
        for number, task in enumerate(tasks):
            await task.start(delay=timedelta(milliseconds=200)) if number % 4 == 0 else await task
        results = []
        with trio.fail_after(30):
            while len(done) < total:
                await trio.sleep(0.01)
            for task in tasks[-5:]:
                results.append(await task.result(10))
        nursery.cancel_scope.cancel()
    assert_each_once(done, total)
    assert [result.result for result in results] == [number**2 for number in range(total - 5, total)]
