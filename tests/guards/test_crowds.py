"""Hundreds of clients wait for one key: first come, first served, nothing lost, nothing given twice, and a push costs
the server what it serves, however many wait.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import trio

from proxy.session import Mode, Session
from tests.inprocess import Client, HungUp, InProcess, in_process, until
from tests.servers import Pool, Server

CROWD = 240
ELEMENTS = 1500
SEED = 20261122
PAIRS = [("redis-6.2", "valkey-9.1"), ("valkey-9.1", "redis-8.2")]
BLOCKING = ("blpop", "brpop", "blmove", "brpoplpush", "bzpopmin", "bzpopmax", "xreadgroup")
SCRIPT = b"for i = 1, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end"
ZSCRIPT = b"for i = 1, #ARGV do redis.call('ZADD', KEYS[1], string.sub(ARGV[i], 2), ARGV[i]) end"
XSCRIPT = b"for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'f', ARGV[i]) end"

Elements = Sequence[str]
Push = Callable[[Elements], list[list[bytes]]]


def say(*words: str | bytes) -> list[bytes]:
    return [word if isinstance(word, bytes) else word.encode() for word in words]


def block(*commands: list[bytes]) -> list[list[bytes]]:
    return [say("MULTI"), *commands, say("EXEC")]


# By kind of key: what waits for `q` (some for other keys as well), and ways to put elements there, the first one first.
WAITING = {
    "list": ["BLPOP q", "BLPOP other q", "BLMOVE q to LEFT RIGHT", "BLPOP q elsewhere"],
    "other end": ["BRPOP q", "BRPOPLPUSH q to", "BRPOP other q", "BLMOVE q to RIGHT LEFT"],
    "zset": ["BZPOPMIN q", "BZPOPMIN other q"],
    "group": ["XREADGROUP GROUP g {me} COUNT 1", "XREADGROUP GROUP g {me}"],
}
PUSHES: dict[str, list[Push]] = {
    "list": [
        lambda some: [say("RPUSH", "q", one) for one in some],
        lambda some: [say("RPUSH", "q", *some)],
        lambda some: block(*[say("RPUSH", "q", one) for one in some]),
        lambda some: [say("EVAL", SCRIPT, "1", "q", *some)],
        lambda some: [say("RPUSH", "from", *some), *[say("LMOVE", "from", "q", "LEFT", "RIGHT") for _ in some]],
    ],
    "other end": [
        lambda some: [say("RPUSH", "q", one) for one in some],
        lambda some: [say("LPUSH", "q", *some)],
        lambda some: block(say("LPUSH", "q", *some)),
        lambda some: [line for one in some for line in block(say("LPUSH", "q", one))],
    ],
    "zset": [
        lambda some: [say("ZADD", "q", one[1:], one) for one in some],
        lambda some: [say("ZADD", "q", *[word for one in some for word in (one[1:], one)])],
        lambda some: block(*[say("ZADD", "q", one[1:], one) for one in some]),
        lambda some: [say("EVAL", ZSCRIPT, "1", "q", *some)],
        lambda some: [say("ZINCRBY", "q", one[1:], one) for one in some],
    ],
    "group": [
        lambda some: [say("XADD", "q", "*", "f", one) for one in some],
        lambda some: block(say("XADD", "q", "*", "f", some[0])),
        lambda some: [say("EVAL", XSCRIPT, "1", "q", some[0])],
    ],
}


def numbers(answer: bytes) -> list[int]:
    """Of the elements that it was given."""
    return [int(number) for number in re.findall(rb"\be(\d+)\r\n", answer)]


class Crowd:
    """Clients that wait for `q`, in order of arrival, and one that pushes."""

    def __init__(self, running: InProcess, source: Server, kind: str) -> None:
        self.running = running
        self.kind = kind
        self.waiting: list[Client] = []
        self.heard: dict[Client, bytes] = {}
        self.pushed = 0
        self._source = source
        self._random = random.Random(SEED)

    def _blocking(self, number: int, timeout_ms: int) -> list[bytes]:
        text = WAITING[self.kind][self._random.randrange(len(WAITING[self.kind]))].format(me=f"c{number}")
        if self.kind == "group":
            return say(*text.split(), "BLOCK", str(timeout_ms), "STREAMS", "q", ">")
        return say(*text.split(), str(timeout_ms / 1000))

    async def comes(self, count: int) -> None:
        """So many more wait, one behind the other; every eighth not for ever."""
        for _ in range(count):
            number = len(self.waiting)
            client = await self.running.client(2 + number % 2)
            await client.say(self._blocking(number, self._random.randint(20, 400) if number % 8 == 5 else 0))
            self.waiting.append(client)
            await until(partial(self._has_come, client.session), "a waiter")

    @staticmethod
    def _has_come(session: Session) -> bool:
        return bool(session.last_command) and session.last_command[0] != b"HELLO"

    async def push(self, pusher: Client, way: Push, count: int) -> None:
        await pusher.say(*way([f"e{self.pushed + number}" for number in range(count)]))
        self.pushed += count

    async def some_leave(self) -> None:
        """By hanging up, and by CLIENT UNBLOCK."""
        control = await self.running.client()
        there = [client for client in self.waiting if client.session.mode is Mode.WAITING]
        for number, client in enumerate(self._random.sample(there, len(there) // 6)):
            if number % 3:
                how = "TIMEOUT" if number % 3 == 1 else "ERROR"
                await control.say(f"CLIENT UNBLOCK {client.session.id} {how}")
            else:
                client.leave()
                self.waiting.remove(client)
                self.running.clients.remove(client)
        await until(lambda: all(client.session.open for client in self.waiting) and not self.running.busy)

    def served(self) -> list[int]:
        """The elements, by the order in which those who got them had come."""
        found = []
        for client in self.waiting:
            self.heard[client] = self.heard.get(client, b"") + b"".join(client.heard())
            found += numbers(self.heard[client])
        return found

    def attempts(self) -> int:
        """Blocking commands that the server has executed."""
        with self._source.client() as server:
            stats = server.info("commandstats")
        return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in BLOCKING)


@pytest.mark.parametrize("kind", WAITING)
@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)
async def test_first_come_first_served(pair: tuple[str, str], kind: str, server_pool: Pool) -> None:
    source, target = (server_pool.get(name) for name in pair)
    chance = random.Random(SEED)
    async with in_process(source, target) as running:
        crowd = Crowd(running, source, kind)
        pusher = await running.client()
        if kind == "group":
            await pusher.ask("XGROUP CREATE q g $ MKSTREAM")
        before = crowd.attempts()
        await crowd.comes(CROWD // 2)
        for number, way in enumerate(chance.choices(PUSHES[kind], k=30)):
            await crowd.push(pusher, way, 1 if kind == "group" else chance.randint(1, 4))
            if number in (10, 20):
                await until(lambda: not running.busy)
                await crowd.some_leave()
                await crowd.comes(CROWD // 4)
        await until(lambda: len(crowd.served()) >= crowd.pushed, "all elements", lambda: str(crowd.served()))
        assert crowd.served() == list(range(crowd.pushed))
        attempts = crowd.attempts() - before
        assert attempts <= CROWD + 2 * crowd.pushed + 60, (attempts, crowd.pushed)
        await running.settled()
        assert not await running.differences()


@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)
async def test_workers_that_come_back_for_more(pair: tuple[str, str], server_pool: Pool) -> None:
    """With whatever they wait for, on either of two keys, while some hang up: every element is given once, to a client
    that is there."""
    source, target = (server_pool.get(name) for name in pair)
    given: list[int] = []
    gone: list[Client] = []
    async with in_process(source, target) as running, trio.open_nursery() as nursery:
        for number in range(CROWD // 2):
            client = await running.client(2 + number % 2)
            nursery.start_soon(work, client, number, given, gone)
        pushers = [await running.client() for _ in range(3)]
        await push_all(running, pushers, gone)
        with source.client() as server:
            await until(lambda: not server.exists("q", "q2"), "nothing left", lambda: f"{running.hub!r}")
        await until(lambda: len(given) >= ELEMENTS - len(gone), "all elements", lambda: f"{len(given)} {running.hub!r}")
        assert len(given) == len(set(given))
        await running.settled()
        assert not await running.differences()
        running.hang_up()
        nursery.cancel_scope.cancel()


async def work(client: Client, number: int, given: list[int], gone: list[Client]) -> None:
    """Until it hangs up, in the middle of its wait."""
    command = ("BLPOP q q2 0", "BRPOP q2 0", "BLPOP q2 q 0.05", "BLMOVE q done LEFT LEFT 0", "BLPOP q 0")[number % 5]
    for _ in range(3) if number % 4 == 0 else itertools.count():
        try:
            given += numbers(b"".join(await client.ask(command)))
        except (HungUp, trio.ClosedResourceError, trio.TooSlowError):
            return
    await client.say(command)
    gone.append(client)
    client.leave()


async def push_all(running: InProcess, pushers: list[Client], gone: list[Client]) -> None:
    chance = random.Random(SEED)
    pushed = 0
    while pushed < ELEMENTS:
        some = [f"e{number}" for number in range(pushed, min(ELEMENTS, pushed + chance.randint(1, 9)))]
        pushed += len(some)
        way = chance.choice(PUSHES["list"])
        key = chance.choice((b"q", b"q2"))
        await chance.choice(pushers).say(*[[key if word == b"q" else word for word in line] for line in way(some)])
        if chance.random() < 0.2:
            await until(lambda: not running.hub.lane.pending)


async def test_readers_of_a_stream_all_get_every_entry(server_62: Server, server_91: Server) -> None:
    """And cost nothing as long as nothing is added for them."""
    async with in_process(server_62, server_91) as running:
        writer = await running.client()
        readers = [await running.client(2 + number % 2) for number in range(CROWD)]
        for number, reader in enumerate(readers):
            await reader.say(f"XREAD BLOCK 0 STREAMS x {'9-0' if number % 3 == 0 else '$'}")
        await until(lambda: len(running.hub.waiters) == CROWD and not running.busy)
        before = calls(server_62, "xread")
        await writer.ask("XADD x 1-1 f e1", "XADD x 2-1 f e2", "XDEL x 2-1", "XTRIM x MAXLEN 1", "EXPIRE x 1000")
        await until(lambda: not running.busy)
        heard = [numbers(b"".join(reader.heard())) for reader in readers]
        assert heard == [[] if number % 3 == 0 else [1] for number in range(CROWD)]
        assert calls(server_62, "xread") - before < 2 * CROWD
        before = calls(server_62, "xread")
        await writer.ask("XTRIM x MAXLEN 0", "XGROUP CREATE x g $", "SET other v", "EXPIRE x 2000", "XSETID x 3-0")
        running.hub.waiters.poll()
        await until(lambda: not running.busy)
        assert calls(server_62, "xread") - before < 10
        await running.settled()
        assert not await running.differences()


def calls(server: Server, name: str) -> int:
    with server.client() as client:
        stats = client.info("commandstats")
    return int(stats[f"cmdstat_{name}"]["calls"])
