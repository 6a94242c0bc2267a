"""Flip after flip in the middle of everything that applications do: nobody may notice one of them.

Every client checks its own view: it reads what it wrote, its counter never goes back and misses nothing, a subscriber
hears each message once and in order, a complete scan finds every key that is there all the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import pytest

from tests.equality import assert_equal_servers
from tests.proxies import RunningProxy, until
from tests.servers import Pool
from tests.traffic import Traffic, preload

STABLE = {"keys": 2000, "fields": 600}
COUNTERS = 4
END = -1


class Watchers:
    """Clients in threads of their own, each going on until told to stop; what they find wrong is in `findings`."""

    def __init__(self, proxy: RunningProxy) -> None:
        self._proxy = proxy
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stack = ExitStack()
        self.findings: list[str] = []
        self.rounds: dict[str, int] = {}

    def start(self, name: str, work: Callable[[Any], bool], **options: Any) -> None:
        """`work(client)` again and again; it returns False when it has come to its end by itself."""
        client = self._stack.enter_context(self._proxy.client(**options))
        self.rounds[name] = 0

        def run() -> None:
            try:
                while not self._stop.is_set() and work(client):
                    self.rounds[name] += 1
            except Exception as problem:  # a client's error is what this is about, whatever it is
                self.findings.append(f"{name}: {problem!r}")

        self._threads.append(threading.Thread(target=run, name=name))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        self._stack.close()


def counter(number: int) -> Callable[[Any], bool]:
    """Counts, and reads what it has just written: nothing goes back, nothing is counted twice."""
    values = iter(range(1, 1 << 60))

    def work(client: Any) -> bool:
        value = next(values)
        assert client.incr(f"flips:counter:{number}") == value
        client.hset(f"flips:hash:{number}", "n", value)
        assert int(client.hget(f"flips:hash:{number}", "n")) == value
        with client.pipeline(transaction=True) as pipeline:
            pipeline.set(f"flips:pair:{number}:a", value).set(f"flips:pair:{number}:b", value)
            pipeline.get(f"flips:pair:{number}:a")
            assert pipeline.execute() == [True, True, b"%d" % value]
        return True

    return work


def scan_keys(client: Any) -> bool:
    found = set(client.scan_iter(match="flips:stable:*", count=100))
    missing = {b"flips:stable:%d" % number for number in range(STABLE["keys"])} - found
    assert not missing, f"a scan missed {len(missing)} keys"
    return True


def scan_elements(client: Any) -> bool:
    fields = {field for field, _ in client.hscan_iter("flips:stable-hash", count=50)}
    members = set(client.sscan_iter("flips:stable-set", count=50))
    scored = {member for member, _ in client.zscan_iter("flips:stable-zset", count=50)}
    assert len(fields) == len(members) == len(scored) == STABLE["fields"]
    return True


class Newspaper:
    """One who publishes numbers, and subscribers who must hear each of them once and in order."""

    def __init__(self) -> None:
        self._published = 0
        self.heard: dict[str, list[int]] = {}

    def publish(self, client: Any) -> bool:
        assert client.publish("flips:news", self._published) == len(self.heard)
        self._published += 1
        return True

    def subscriber(self, name: str, subscribed: Any) -> Callable[[Any], bool]:
        heard = self.heard[name] = []

        def work(_: Any) -> bool:
            message = subscribed.get_message(timeout=0.2)
            if message is not None and message["type"] in ("message", "pmessage"):
                heard.append(int(message["data"]))
                assert heard[-1] == len(heard) - 1, f"{name} heard {heard[-1]} as number {len(heard) - 1}"
            return not heard or heard[-1] != END

        return work

    def assert_all_heard(self) -> None:
        for name, heard in self.heard.items():
            until(lambda heard=heard: len(heard) >= self._published, f"{name}: all {self._published} messages")  # type: ignore[misc]


def mover(client: Any) -> bool:
    """What is pushed comes out again, by a client that waits for it."""
    client.rpush("flips:queue", "work")
    key, item = client.blpop(["flips:queue"], timeout=20)
    assert (key, item) == (b"flips:queue", b"work")
    return True


PAIRS = [("redis-6.2", "valkey-9.1", 20), pytest.param("redis-6.2", "redis-8.2", 200, marks=pytest.mark.slow)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("source", "target", "flips"), PAIRS)
def test_flip_after_flip(
    server_pool: Pool, start_proxy: Callable[..., RunningProxy], source: str, target: str, flips: int
) -> None:
    a, b = server_pool.get(source), server_pool.get(target)
    preload(a, 1000, seed=21)
    proxy = start_proxy(a, b)
    with proxy.client() as client:
        client.mset({f"flips:stable:{number}": number for number in range(STABLE["keys"])})
        names = [f"{number}" for number in range(STABLE["fields"])]
        client.hset("flips:stable-hash", mapping=dict.fromkeys(names, "v"))
        client.sadd("flips:stable-set", *names)
        client.zadd("flips:stable-zset", dict.fromkeys(names, 1))
    proxy.backfill()
    proxy.verify()
    news, watchers = Newspaper(), Watchers(proxy)
    for number in range(COUNTERS):
        watchers.start(f"counter {number}", counter(number), protocol=2 + number % 2)
    watchers.start("scan of keys", scan_keys)
    watchers.start("scans of elements", scan_elements, protocol=3)
    watchers.start("mover", mover)
    with ExitStack() as stack:
        for name, subscribe, protocol in [
            ("channel, RESP2", "subscribe", 2),
            ("channel, RESP3", "subscribe", 3),
            ("pattern", "psubscribe", 2),
        ]:
            subscriber = stack.enter_context(proxy.client(protocol=protocol))
            subscribed = stack.enter_context(subscriber.pubsub(ignore_subscribe_messages=True))
            getattr(subscribed, subscribe)("flips:n*" if subscribe == "psubscribe" else "flips:news")
            subscribed.get_message(timeout=5)  # the confirmation
            watchers.start(name, news.subscriber(name, subscribed))
        watchers.start("publisher", news.publish)
        with watchers, Traffic(proxy, clients=8, rate=300.0, seed=21, also_known_to=b) as traffic:
            done = _flip(proxy, traffic, watchers, flips)
            news.assert_all_heard()
        assert not watchers.findings, watchers.findings
    traffic.assert_clean()
    assert done == flips and all(watchers.rounds.values()), watchers.rounds
    status = proxy.wait_settled()
    assert (status["epoch"], status["unmirrored"]) == (flips, 0)
    proxy.verify()
    assert_equal_servers(a, b)


def _flip(proxy: RunningProxy, traffic: Traffic, watchers: Watchers, flips: int) -> int:
    done = 0
    while done < flips and not watchers.findings:
        traffic.wait_for(20)
        done += proxy.admin("FLIP", "SKIP-VERIFY")["flipped"]
    return done
