"""A backfill by a process of its own: with writers on the very keys that cross, and all that may be lost meanwhile."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.journal import note_crossing
from tests.equality import assert_equal_servers
from tests.integration.outage_rig import Rig, rigs
from tests.proxies import RunningProxy, until
from tests.servers import Pool, Server
from tests.traffic import preload

MakeRig = Callable[..., Rig]
StartProxy = Callable[..., RunningProxy]
FERRY = ("--ferry", "1")
KEYS = 6000


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    yield from rigs()


class Writers:
    """Clients of the proxy that write the keys of `fill` while they are copied: not more than can be copied again."""

    def __init__(self, proxy: RunningProxy, keys: int, *, clients: int = 4, tolerant: bool = False) -> None:
        self.writes = 0
        self._proxy, self._keys, self._tolerant = proxy, keys, tolerant
        self._going = True
        self._problems: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(clients)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._going = False
        for thread in self._threads:
            thread.join(20)
        if not self._tolerant:
            assert not self._problems, self._problems[0]

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        client = redis.Redis(port=self._proxy.port, socket_timeout=20)
        while self._going:
            try:
                write(client, rng, rng.randrange(self._keys))
                self.writes += 1
                time.sleep(0.004)
            except redis.RedisError as problem:
                self._problems.append(problem)
                time.sleep(0.02)


def fill(server: Server, keys: int) -> None:
    """Keys of five types, each type by the number of the key."""
    pipe = server.client().pipeline(transaction=False)
    for number in range(keys):
        name = f"k:{number}"
        match number % 5:
            case 0:
                pipe.set(name, number, px=10**8 if number % 2 else None)
            case 1:
                pipe.rpush(name, *range(5))
            case 2:
                pipe.hset(name, mapping={"a": number, "b": 1})
            case 3:
                pipe.sadd(name, *range(number % 7 + 1))
            case 4:
                pipe.zadd(name, {"m": number, "n": 1})
    pipe.execute()


def fill_rig(rig: Rig) -> None:
    """The watch has seen all of that: it is copied before the test begins, and copied over by the ferry."""
    fill(rig.source, KEYS)
    rig.proxy.wait_settled()


def write(client: redis.Redis, rng: random.Random, number: int) -> Any:
    """What builds on what was there, deletes it, makes it anew, or moves it."""
    name = f"k:{number}"
    if rng.random() < 0.1:
        return client.delete(name)
    if rng.random() < 0.05:
        with suppress(redis.ResponseError):  # no such key
            return client.rename(name, f"k:{number + 5}")
    first = rng.random() < 0.5
    match number % 5:
        case 0 if rng.random() < 0.3:
            return client.pexpire(name, 10**7) if first else client.persist(name)
        case 0:
            return client.incr(name)
        case 1:
            return client.lpop(name) if first else client.rpush(name, rng.random())
        case 2:
            return client.hincrby(name, "a", 3)
        case 3:
            return client.spop(name) if first else client.sadd(name, rng.randrange(9))
        case _:
            return client.zincrby(name, 2, "m")


class Stutter:
    """The ferry is stopped again and again: what it has read becomes old before it writes it."""

    def __init__(self, proxy: RunningProxy) -> None:
        self._proxy = proxy
        self._going = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stutter:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._going = False
        self._thread.join(20)

    def _run(self) -> None:
        while self._going:
            for pid in ferries(self._proxy):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(0.03)
                    os.kill(pid, signal.SIGCONT)
            time.sleep(0.003)


def begin(proxy: RunningProxy) -> None:
    """A backfill that takes three seconds at least: it is far from its end when this returns."""
    proxy.admin("BACKFILL", "RATE", "2000")
    until(lambda: proxy.status()["backfill"]["aside"], "the ferry's first keys")


def ended(proxy: RunningProxy) -> dict[str, Any]:
    until(
        lambda: proxy.status()["backfill"]["state"] != "running" and proxy.status()["phase"] != "filling", "the end", 40
    )
    found: dict[str, Any] = proxy.status()["backfill"]
    assert (found["state"], found["complete"], found["failed"]) == ("done", True, 0)
    return found


def ferries(proxy: RunningProxy) -> list[int]:
    children = " ".join(path.read_text() for path in Path(f"/proc/{proxy.pid}/task").glob("*/children")).split()
    return [int(pid) for pid in children if b"ferry" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def no_crossings(proxy: RunningProxy) -> bool:
    return not list((proxy.state_dir / "journal").glob("*.crossing"))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("redis-6.2", "valkey-9.1"),
        pytest.param("redis-7.0", "redis-8.2", marks=pytest.mark.slow),
        pytest.param("valkey-8.1", "valkey-9.1", marks=pytest.mark.slow),
    ],
)
def test_what_is_written_while_it_crosses_ends_equal(make_rig: MakeRig, source: str, target: str) -> None:
    """A crossing takes long, and most of what is written meanwhile is written in one."""
    rig = make_rig(source, target, *FERRY, keys=1000, fill=False)
    fill_rig(rig)
    with Writers(rig.proxy, KEYS) as writers, Stutter(rig.proxy):
        rig.proxy.admin("BACKFILL")
        found = rig.refilled()
    assert found["aside"] > KEYS / 3, found
    assert writers.writes > 100
    rig.assert_equal()
    assert no_crossings(rig.proxy)


def test_every_type_and_db(server_pool: Pool, start_proxy: StartProxy) -> None:
    """Nobody writes: all but what is large goes by the ferry, and is equal."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("redis-8.2")
    preload(a, KEYS, seed=3, short_ttls=False)
    a.client().set("large", b"x" * 100_000)
    a.client(5).hset("larger", mapping={str(field): "y" * 1000 for field in range(3000)})
    proxy = start_proxy(a, b, *FERRY)
    proxy.backfill()
    found = ended(proxy)
    assert KEYS - 100 < found["aside"] <= found["copied"] - 2, found
    assert_equal_servers(a, b)


def test_a_target_that_takes_no_payload_is_filled_through_the_lane(server_pool: Pool, start_proxy: StartProxy) -> None:
    a, b = server_pool.get("redis-8.2"), server_pool.get("redis-6.2")
    fill(a, 1000)
    proxy = start_proxy(a, b, *FERRY)
    proxy.backfill()
    assert ended(proxy)["aside"] == 0
    assert "goes on without the ferry: the mirror side takes no payload" in proxy.log
    assert_equal_servers(a, b)


@pytest.mark.parametrize(
    "options", [["MATCH", "k:*1*", "EXCLUDE", "*7"], ["TYPE", "hash", "TYPE", "set"], ["TYPE", "list"]]
)
def test_some_keys_only(server_pool: Pool, start_proxy: StartProxy, options: list[str]) -> None:
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    fill(a, 1000)
    proxy = start_proxy(a, b, *FERRY)
    proxy.admin("BACKFILL", *options)
    until(lambda: proxy.status()["backfill"]["state"] == "done", "the end")
    found = proxy.status()["backfill"]
    assert found["aside"] == found["copied"] == b.client().dbsize() > 10
    there = set(b.client().scan_iter())
    if options[0] == "MATCH":
        assert there == {key for key in a.client().scan_iter("k:*1*") if not key.endswith(b"7")}
    else:
        assert {b.call("TYPE", key).decode() for key in there} == set(options[1::2])


def test_the_ferry_is_killed(make_rig: MakeRig) -> None:
    """In the middle: what it had under way is copied again, the rest through the lane."""
    rig = make_rig("redis-6.2", "valkey-9.1", *FERRY, keys=500, fill=False)
    fill_rig(rig)
    rig.to_target.delay(0.05)
    with Writers(rig.proxy, KEYS):
        begin(rig.proxy)
        (pid,) = ferries(rig.proxy)
        os.kill(pid, signal.SIGKILL)
        rig.to_target.heal()
        found = rig.refilled()
    assert found["aside"] < found["copied"], found
    assert "goes on without the ferry: its process ended with -9" in rig.proxy.log
    rig.assert_equal()
    assert no_crossings(rig.proxy)


def test_the_proxy_is_killed_while_keys_cross(make_rig: MakeRig) -> None:
    """What the ferry has sent arrives late: behind what clients deleted, and made anew, after the restart. It is fenced
    before, and the keys are known by their file."""
    rig = make_rig("redis-6.2", "valkey-9.1", *FERRY, keys=500, fill=False)
    fill_rig(rig)
    rig.to_target.delay(0.05)
    with Writers(rig.proxy, KEYS, tolerant=True):
        begin(rig.proxy)
        until(lambda: not no_crossings(rig.proxy), "a crossing")
        rig.proxy.kill()
        assert not no_crossings(rig.proxy)
        rig.proxy.start()
        assert "keys that another process was copying are copied again" in rig.proxy.log
        rig.to_target.heal()
        rig.refilled()
    rig.assert_equal()
    assert no_crossings(rig.proxy)


def test_what_a_former_proxy_left_is_copied_again(server_pool: Pool, start_proxy: StartProxy) -> None:
    """Also when it was stopped, and when no backfill would look at the keys again."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    fill(a, 10)
    proxy = start_proxy(a, b, *FERRY, "--scrub", "0")
    proxy.backfill()
    ended(proxy)
    proxy.stop()
    note_crossing(proxy.state_dir / "journal", "7", 0, [b"k:0", b"deleted"])
    b.client().mset({"k:0": "older", "deleted": "older"})
    proxy.start()
    until(lambda: not b.client().exists("deleted"), "the copies")
    proxy.wait_settled()
    assert_equal_servers(a, b)
    assert no_crossings(proxy)


@pytest.mark.parametrize("side", [pytest.param("to_source", marks=pytest.mark.slow), "to_target"])
def test_a_connection_is_lost_while_keys_cross(make_rig: MakeRig, side: str) -> None:
    rig = make_rig("redis-6.2", "valkey-9.1", *FERRY, keys=500, fill=False)
    fill_rig(rig)
    rig.to_target.delay(0.01)
    with Writers(rig.proxy, KEYS, tolerant=True):
        begin(rig.proxy)
        for _ in range(3):
            getattr(rig, side).cut()
            time.sleep(0.3)
        rig.to_target.heal()
        rig.refilled()
    rig.assert_equal()
    assert no_crossings(rig.proxy)


@pytest.mark.slow
def test_a_target_that_hangs_while_keys_cross(make_rig: MakeRig) -> None:
    """Clients notice nothing; what the ferry has sent is carried out behind the hang."""
    rig = make_rig("redis-6.2", "valkey-9.1", *FERRY, keys=500, fill=False)
    fill_rig(rig)
    rig.to_target.delay(0.01)
    with Writers(rig.proxy, KEYS) as writers:
        begin(rig.proxy)
        rig.target.pause()
        before = writers.writes
        until(lambda: writers.writes > before + 200, "writes")
        rig.target.resume()
        rig.to_target.heal()
        rig.refilled()
    rig.assert_equal()


@pytest.mark.parametrize("command", [pytest.param("FLUSHDB", marks=pytest.mark.slow), "SWAPDB 0 1"])
def test_a_command_that_touches_every_key_while_keys_cross(make_rig: MakeRig, command: str) -> None:
    rig = make_rig("redis-6.2", "valkey-9.1", *FERRY, keys=500, fill=False)
    fill_rig(rig)
    rig.to_target.delay(0.01)
    with Writers(rig.proxy, KEYS):
        begin(rig.proxy)
        rig.proxy.client().execute_command(*command.split())
        rig.to_target.heal()
        rig.refilled()
    rig.assert_equal()


def test_few_keys_and_equal_sides_need_no_ferry(server_pool: Pool, start_proxy: StartProxy) -> None:
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    fill(a, 500)
    proxy = start_proxy(a, b, "--ferry", "501")
    proxy.backfill()
    assert ended(proxy)["aside"] == 0
    proxy.stop()
    proxy.options[:] = FERRY
    proxy.start()
    proxy.backfill()  # of sides that are equal: nothing older may be there, not even for a moment
    assert ended(proxy)["aside"] == 0
    assert_equal_servers(a, b)
