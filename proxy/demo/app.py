"""The demo's application: a small web shop, with one thread for each thing that it does.

It is what any application is: redis-py and a connection string, run as a process of its own. It knows nothing of
crossfade and imports none of it. It does not retry: whatever goes wrong with a command counts as an error. And it
checks what it reads: every thread knows what its keys must hold, as nobody else writes to them.

It reports on stdout, one JSON document a line, and ends when its stdin does: `python app.py redis://host:port`.
"""
# An ordinary threaded program on purpose: it is the one file here that is not part of crossfade.
# ruff: noqa: TID251

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

REPORT_SECONDS = 0.1
BLOCK_SECONDS = 1  # how long a worker waits for a job before it looks whether it should end
END_SECONDS = 5.0  # for the consumers to take what is left
SOCKET_TIMEOUT_SECONDS = 20.0
ERROR_PAUSE_SECONDS = 0.05
MAX_TEXTS = 10
FEED_LENGTH = 2000
ACKNOWLEDGE = 20  # feed entries at once; so some are always pending
LIMITER = "local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], ARGV[1]) return n"


class Meter:
    """What one thread has done. Only that thread writes to it."""

    def __init__(self) -> None:
        self.commands = 0
        self.errors = 0
        self.checks = 0
        self.wrong = 0
        self.slowest_ms = 0.0  # since the last report
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        if len(self.texts) < MAX_TEXTS:
            self.texts.append(text)


class Worker:
    """One thread with a connection of its own. `step` is what it does again and again."""

    title = ""
    pause = 0.005  # s between two steps

    def __init__(self, url: str, number: int, stopping: threading.Event) -> None:
        self.meter = Meter()
        self.number = number
        self.random = Random(number)
        self.stopping = stopping
        self.client: Any = redis.Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_timeout=SOCKET_TIMEOUT_SECONDS, decode_responses=True
        )
        self.thread = threading.Thread(target=self.run, name=f"{self.title} {number}", daemon=True)

    def run(self) -> None:
        while not self.finished():
            try:
                self.step()
            except redis.RedisError as error:
                self.meter.errors += 1
                self._give_up_step(error)
            except Exception as error:  # a reply that no code could use, whatever it made of it
                self.meter.wrong += 1
                self._give_up_step(error)
            if self.pause:
                time.sleep(self.pause)

    def _give_up_step(self, error: Exception) -> None:
        self.meter.note(f"{self.title}: {type(error).__name__}: {error}")
        self.after_error()
        time.sleep(ERROR_PAUSE_SECONDS)

    def step(self) -> None:
        raise NotImplementedError

    def finished(self) -> bool:
        return self.stopping.is_set()

    @property
    def ended(self) -> bool:
        """Nothing more comes from it."""
        return self.stopping.is_set() and not self.thread.is_alive()

    def after_error(self) -> None:
        """Whether the command was executed is not known: what follows from it is forgotten."""

    def timed(self, command: Callable[..., Any], *args: Any, count: int = 1, **options: Any) -> Any:
        """The reply of a command (or of a pipeline of `count`) that should be answered at once."""
        began = time.perf_counter()
        try:
            return command(*args, **options)
        finally:
            self.meter.commands += count
            self.meter.slowest_ms = max(self.meter.slowest_ms, (time.perf_counter() - began) * 1000)

    def waiting(self, command: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The reply of a command that waits for something: how long it takes says nothing."""
        try:
            return command(*args, **options)
        finally:
            self.meter.commands += 1

    def check(self, what: str, found: Any, wanted: Any) -> None:
        self.meter.checks += 1
        if found != wanted:
            self.meter.wrong += 1
            self.meter.note(f"{self.title}: {what}: {found!r} instead of {wanted!r}"[:300])


class Sessions(Worker):
    """Strings with an expiry: written, read back, prolonged, deleted."""

    title = "sessions"

    def __init__(self, url: str, number: int, stopping: threading.Event) -> None:
        super().__init__(url, number, stopping)
        self.known: dict[str, str] = {}

    def step(self) -> None:
        key = f"shop:session:{self.number}:{self.random.randrange(500)}"
        if key not in self.known or self.random.random() < 0.3:
            value = json.dumps({"user": self.random.randrange(10**6), "token": self.random.randbytes(12).hex()})
            self.timed(self.client.set, key, value, ex=self.random.randrange(600, 3600))
            self.known[key] = value
        elif self.random.random() < 0.1:
            self.check(f"DEL {key}", self.timed(self.client.delete, key), 1)
            del self.known[key]
            self.check(f"EXISTS {key}", self.timed(self.client.exists, key), 0)
            return
        elif self.random.random() < 0.2:
            self.check(f"EXPIRE {key}", self.timed(self.client.expire, key, 1800), True)
            left = self.timed(self.client.ttl, key)
            self.check(f"TTL {key} is {left}", 1790 <= left <= 1800, True)
        self.check(f"GET {key}", self.timed(self.client.get, key), self.known[key])

    def after_error(self) -> None:
        self.known.clear()


class Carts(Worker):
    """Hashes, changed in transactions and read back in full."""

    title = "carts"

    def __init__(self, url: str, number: int, stopping: threading.Event) -> None:
        super().__init__(url, number, stopping)
        self.known: dict[str, dict[str, str]] = {}
        self.round = 0

    def step(self) -> None:
        key = f"shop:cart:{self.number}:{self.round}:{self.random.randrange(200)}"
        cart = self.known.setdefault(key, {})
        item, pieces = f"item:{self.random.randrange(20)}", self.random.randrange(1, 4)
        with self.client.pipeline(transaction=True) as pipeline:
            pipeline.hincrby(key, item, pieces)
            pipeline.hset(key, "seen", str(self.meter.commands))
            pipeline.expire(key, 7200)
            replies = self.timed(pipeline.execute, count=5)
        cart[item] = str(int(cart.get(item, "0")) + pieces)
        cart["seen"] = str(self.meter.commands - 5)
        self.check(f"HINCRBY {key} {item}", str(replies[0]), cart[item])
        if self.random.random() < 0.3:
            self.check(f"HDEL {key} {item}", self.timed(self.client.hdel, key, item), 1)
            del cart[item]
        self.check(f"HGETALL {key}", self.timed(self.client.hgetall, key), cart)

    def after_error(self) -> None:
        self.known.clear()
        self.round += 1


class Counters(Worker):
    """Counters that several threads raise at the same time: a counter never goes back."""

    title = "counters"
    pages = 300
    seen: dict[str, int]  # shared by all of them

    def __init__(self, url: str, number: int, stopping: threading.Event, seen: dict[str, int]) -> None:
        super().__init__(url, number, stopping)
        self.seen = seen

    def step(self) -> None:
        key = f"views:{self.random.randrange(self.pages)}"
        floor = self.seen.get(key, -1)
        value = self.timed(self.client.incr, key)
        self.check(f"INCR {key} gave {value} after {floor}", value > floor, True)
        self.seen[key] = max(value, self.seen.get(key, -1))
        floor = self.seen[key]
        value = int(self.timed(self.client.get, key))
        self.check(f"GET {key} gave {value} after {floor}", value >= floor, True)
        if self.random.random() < 0.2:
            self.timed(self.client.pfadd, f"visitors:{self.random.randrange(20)}", self.random.randrange(10**6))


class Scores(Worker):
    """A leaderboard of 30,000 players: scores change, ranks are read."""

    title = "leaderboards"
    pause = 0.01

    def __init__(self, url: str, number: int, stopping: threading.Event) -> None:
        super().__init__(url, number, stopping)
        self.known: dict[str, float] = {}
        self.round = 0

    def step(self) -> None:
        player, points = f"new:{self.number}:{self.round}:{self.random.randrange(200)}", self.random.randrange(100) / 4
        score = self.timed(self.client.zincrby, "big:leaderboard", points, player)
        self.known[player] = self.known.get(player, 0.0) + points
        self.check(f"ZINCRBY {player}", score, self.known[player])
        self.check(f"ZSCORE {player}", self.timed(self.client.zscore, "big:leaderboard", player), self.known[player])
        top = self.timed(self.client.zrevrange, "big:leaderboard", 0, 9, withscores=True)
        scores = [entry[1] for entry in top]
        self.check("ZREVRANGE is sorted", scores, sorted(scores, reverse=True))

    def after_error(self) -> None:
        self.known.clear()
        self.round += 1


class Stock(Worker):
    """Optimistic locking: WATCH, GET, MULTI, SET, EXEC on keys that several threads want to change."""

    title = "stock (WATCH)"
    pause = 0.02

    def __init__(self, url: str, number: int, stopping: threading.Event, sold: dict[str, int], lock: Any) -> None:
        super().__init__(url, number, stopping)
        self.sold = sold
        self.lock = lock

    def step(self) -> None:
        key = f"shop:stock:{self.random.randrange(5)}"
        with self.client.pipeline() as pipeline:
            try:
                pipeline.watch(key)
                before = int(self.timed(pipeline.get, key) or 0)
                pipeline.multi()
                pipeline.set(key, before + 1)
                self.timed(pipeline.execute, count=4)
            except redis.WatchError:
                return  # another thread was faster
        with self.lock:
            self.sold[key] = self.sold.get(key, 0) + 1

    def conclude(self) -> None:
        for key, count in self.sold.items():
            self.check(f"GET {key}", int(self.client.get(key)), count)


class Limiter(Worker):
    """A Lua script: counts the requests of a visitor."""

    title = "rate limits (Lua)"
    pause = 0.02

    def __init__(self, url: str, number: int, stopping: threading.Event) -> None:
        super().__init__(url, number, stopping)
        self.script = self.client.register_script(LIMITER)
        self.known: dict[str, int] = {}
        self.round = 0

    def step(self) -> None:
        key = f"shop:limit:{self.number}:{self.round}:{self.random.randrange(50)}"
        self.known[key] = self.known.get(key, 0) + 1
        self.check(f"EVALSHA {key}", self.timed(self.script, keys=[key], args=[600_000]), self.known[key])

    def after_error(self) -> None:
        self.known.clear()
        self.round += 1


class Jobs:
    """What is in the queue: every job must come out once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: set[str] = set()
        self.next = 0

    def new(self) -> str:
        with self.lock:
            self.next += 1
            job = f"job:{self.next}"
            self.open.add(job)
            return job

    def take(self, job: str) -> bool:
        """False: it came out before, or was never put in."""
        with self.lock:
            known = job in self.open
            self.open.discard(job)
            return known


class Dispatcher(Worker):
    """Puts jobs into a queue that is empty nearly always, so that the workers wait in BLPOP and BLMOVE."""

    title = "queue: producer"

    def __init__(self, url: str, number: int, stopping: threading.Event, jobs: Jobs) -> None:
        super().__init__(url, number, stopping)
        self.jobs = jobs

    def step(self) -> None:
        jobs = [self.jobs.new() for _ in range(self.random.choice((1, 1, 1, 3)))]
        self.timed(self.client.rpush, f"shop:jobs:{self.random.randrange(2)}", *jobs)


class JobWorker(Worker):
    """Waits for jobs: one with BLPOP on two queues."""

    title = "queue: worker (BLPOP)"
    pause = 0.0

    def __init__(self, url: str, number: int, stopping: threading.Event, jobs: Jobs, producer: Worker) -> None:
        super().__init__(url, number, stopping)
        self.jobs = jobs
        self.producer = producer

    def finished(self) -> bool:
        return self.producer.ended and not self.jobs.open

    def take(self, job: str) -> None:
        self.check(f"{job} comes once", self.jobs.take(job), True)

    def step(self) -> None:
        found = self.waiting(self.client.blpop, ["shop:jobs:0", "shop:jobs:1"], BLOCK_SECONDS)
        if found is not None:
            self.take(found[1])


class CarefulWorker(JobWorker):
    """Moves a job to a list of its own, and removes it from there when it is done."""

    title = "queue: worker (BLMOVE)"

    def step(self) -> None:
        job = self.waiting(self.client.blmove, "shop:jobs:0", "shop:doing", BLOCK_SECONDS, "LEFT", "RIGHT")
        if job is not None:
            self.take(job)
            self.check(f"LREM {job}", self.timed(self.client.lrem, "shop:doing", 1, job), 1)


class Poster(Worker):
    """Appends to a stream, kept short."""

    title = "feed: producer"
    pause = 0.01

    def __init__(self, url: str, number: int, stopping: threading.Event, posts: Jobs) -> None:
        super().__init__(url, number, stopping)
        self.posts = posts

    def step(self) -> None:
        self.timed(self.client.xadd, "shop:feed", {"post": self.posts.new()}, maxlen=FEED_LENGTH, approximate=True)


class Reader(Worker):
    """A consumer group's member: waits for entries, and acknowledges many at once."""

    title = "feed: reader (XREADGROUP)"
    pause = 0.0

    def __init__(self, url: str, number: int, stopping: threading.Event, posts: Jobs, producer: Worker) -> None:
        super().__init__(url, number, stopping)
        self.posts = posts
        self.producer = producer
        self.delivered: list[str] = []
        self.client.xgroup_create("shop:feed", "readers", id="0", mkstream=True)

    def finished(self) -> bool:
        return self.producer.ended and not self.posts.open

    def step(self) -> None:
        found = self.waiting(
            self.client.xreadgroup, "readers", "web", {"shop:feed": ">"}, count=10, block=BLOCK_SECONDS * 1000
        )
        streams = found.items() if isinstance(found, dict) else found or ()
        for _, pages in streams:
            entries = pages[0] if pages and isinstance(pages[0], list) else pages  # RESP3 has a list more
            for ident, fields in entries:
                self.check(f"{fields['post']} comes once", self.posts.take(fields["post"]), True)
                self.delivered.append(ident)
        if len(self.delivered) >= ACKNOWLEDGE:
            batch, self.delivered = self.delivered, []
            self.check("XACK", self.timed(self.client.xack, "shop:feed", "readers", *batch), len(batch))

    def after_error(self) -> None:
        self.delivered = []


class Announcer(Worker):
    """Publishes numbered messages."""

    title = "news: publisher"
    pause = 0.02

    def __init__(self, url: str, number: int, stopping: threading.Event) -> None:
        super().__init__(url, number, stopping)
        self.sent = 0

    def step(self) -> None:
        self.sent += 1
        self.check("PUBLISH reaches the subscriber", self.timed(self.client.publish, "shop:news", str(self.sent)), 1)


class Subscriber(Worker):
    """Every message comes once, in order."""

    title = "news: subscriber"
    pause = 0.0

    def __init__(self, url: str, number: int, stopping: threading.Event, announcer: Announcer) -> None:
        super().__init__(url, number, stopping)
        self.announcer = announcer
        self.last = 0
        self.channel = self.client.pubsub(ignore_subscribe_messages=True)
        self.channel.subscribe("shop:news")
        self.channel.get_message(timeout=SOCKET_TIMEOUT_SECONDS)  # the confirmation: what is published now is heard

    def finished(self) -> bool:
        return self.announcer.ended and self.last == self.announcer.sent

    def step(self) -> None:
        message = self.channel.get_message(timeout=BLOCK_SECONDS)
        if message is not None:
            self.meter.commands += 1
            number = int(message["data"])
            self.check("message", number, self.last + 1)
            self.last = number


class Application:
    """All threads, and what they report."""

    def __init__(self, url: str) -> None:
        self.stopping = threading.Event()
        self.jobs, self.posts = Jobs(), Jobs()
        self.began = time.monotonic()
        self.slowest_ms = 0.0  # of all commands that should be answered at once
        seen: dict[str, int] = {}
        sold: dict[str, int] = {}
        lock = threading.Lock()
        common = url, 0, self.stopping
        dispatcher, poster = Dispatcher(*common, self.jobs), Poster(*common, self.posts)
        announcer = Announcer(*common)
        self.stock = [Stock(url, number, self.stopping, sold, lock) for number in range(2)]
        self.workers: list[Worker] = [
            *(Sessions(url, number, self.stopping) for number in range(2)),
            Carts(*common),
            *(Counters(url, number, self.stopping, seen) for number in range(2)),
            Scores(*common),
            *self.stock,
            Limiter(*common),
            dispatcher,
            JobWorker(*common, self.jobs, dispatcher),
            CarefulWorker(*common, self.jobs, dispatcher),
            poster,
            Reader(*common, self.posts, poster),
            announcer,
            Subscriber(*common, announcer),
        ]

    def run(self) -> None:
        """Until stdin ends."""
        for worker in self.workers:
            worker.thread.start()
        threading.Thread(target=self._await_end, daemon=True).start()
        while not self.stopping.is_set():
            time.sleep(REPORT_SECONDS)
            self._print(self._report())
        self._wind_up()
        self._print({"final": self._final()})

    def _await_end(self) -> None:
        sys.stdin.read()
        self.stopping.set()

    def _wind_up(self) -> None:
        deadline = time.monotonic() + END_SECONDS
        for worker in self.workers:
            worker.thread.join(max(0.0, deadline - time.monotonic()))
        for what, left in (("jobs", self.jobs), ("feed entries", self.posts)):
            lost = sorted(left.open)
            self.stock[0].check(f"{what} lost: {len(lost)}", lost[:5], [])
        alive = [worker.thread.name for worker in self.workers if worker.thread.is_alive()]
        self.stock[0].check("threads that did not end", alive, [])
        self.stock[0].conclude()

    def _report(self) -> dict[str, Any]:
        report: dict[str, Any] = {"at": time.monotonic(), **self._sums(), "slowest_ms": 0.0}
        for worker in self.workers:
            slowest, worker.meter.slowest_ms = worker.meter.slowest_ms, 0.0
            report["slowest_ms"] = max(report["slowest_ms"], round(slowest, 3))
        self.slowest_ms = max(self.slowest_ms, report["slowest_ms"])
        return report

    def _sums(self) -> dict[str, int]:
        meters = [worker.meter for worker in self.workers]
        return {
            "commands": sum(meter.commands for meter in meters),
            "checks": sum(meter.checks for meter in meters),
            "errors": sum(meter.errors for meter in meters),
            "wrong": sum(meter.wrong for meter in meters),
        }

    def _final(self) -> dict[str, Any]:
        roles: dict[str, dict[str, int]] = {}
        for worker in self.workers:
            role = roles.setdefault(worker.title, {"commands": 0, "checks": 0, "errors": 0, "wrong": 0})
            for name in role:
                role[name] += getattr(worker.meter, name)
        texts = [text for worker in self.workers for text in worker.meter.texts]
        seconds = round(time.monotonic() - self.began, 3)
        facts = {"threads": len(self.workers), "seconds": seconds, "slowest_ms": self.slowest_ms}
        return {**self._sums(), **facts, "roles": roles, "texts": texts}

    @staticmethod
    def _print(document: dict[str, Any]) -> None:
        print(json.dumps(document), flush=True)


if __name__ == "__main__":
    Application(sys.argv[1]).run()
