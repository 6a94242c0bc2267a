"""Starts, paces and stops the clients, and adds up at the end what must add up."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from random import Random
from types import TracebackType
from typing import Protocol, Self

import trio

from tests.traffic.client import MOVES, Client, Move, single
from tests.traffic.connection import Broken, Command, Connection
from tests.traffic.ledger import Ledger, Statistics
from tests.traffic.templates import TEMPLATES, Filler, Template, parse

GROUPS = (*TEMPLATES, *MOVES)
STOP_TIMEOUT_S = 40.0  # a client finishes its move; that takes at most one reply timeout
POLL_S = 0.01


class HasUrl(Protocol):
    @property
    def url(self) -> str: ...


class Traffic:
    """`clients` connections sending `rate` moves a second in all, drawn from `seed`, until stopped.

    From anywhere: `with Traffic(server, seed=1) as traffic: ...` (a thread of its own), then traffic.assert_clean().
    Inside trio, with the code under test in the same loop: nursery.start_soon(traffic.run), `await traffic.finish()`.

    `only` / `without`: names out of GROUPS. `prefix` keeps two Traffics on one server apart. `tolerate_disconnects`:
    lost connections are counted, yet are no findings. `rate=None`: as fast as it goes. A server that is flushed, or
    loses acknowledged writes in a crash, needs without=("checked", "watch"). `also_known_to`: only commands that this
    other server knows as well, for a migration between versions.
    """

    def __init__(
        self,
        target: HasUrl | str,
        *,
        clients: int = 10,
        rate: float | None = 400.0,
        seed: int = 1,
        dbs: tuple[int, ...] = (0, 1),
        hot: int = 3,
        prefix: str = "",
        only: Collection[str] = (),
        without: Collection[str] = (),
        tolerate_disconnects: bool = False,
        also_known_to: HasUrl | str | None = None,
    ) -> None:
        unknown = {*only, *without}.difference(GROUPS)
        if unknown:
            raise ValueError(f"no such groups: {sorted(unknown)}")
        self._url = _url(target)
        self._judges = [self._url, *([] if also_known_to is None else [_url(also_known_to)])]
        self._groups = [group for group in GROUPS if (not only or group in only) and group not in without]
        self._clients, self._rate, self._seed = clients, rate, seed
        self._dbs, self._hot, self._prefix = dbs, hot, prefix
        self._ledger = Ledger(tolerate_disconnects=tolerate_disconnects)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._finished = threading.Event()

    def __repr__(self) -> str:
        found = self.statistics()
        return f"<Traffic seed {self._seed} {found.commands} commands, {found.unexpected} unexpected>"

    # From a thread

    def start(self) -> Self:
        """Runs in a thread of its own until stop()."""

        def main() -> None:
            try:
                trio.run(self.run)
            except BaseException as error:
                self._failure = error

        self._thread = threading.Thread(target=main, name="traffic", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> Statistics:
        """Lets every client finish its move, adds up, and tells. Raises what went wrong in the traffic itself."""
        self._stopping = True
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)
            if self._thread.is_alive():
                raise TimeoutError("the traffic did not stop")
        if self._failure is not None:
            raise self._failure
        return self.statistics()

    def wait_for(self, commands: int, timeout: float = 30.0) -> None:
        """Returns when that many more commands have been answered; TimeoutError if that takes too long."""
        wanted, deadline = self._ledger.commands + commands, time.monotonic() + timeout
        while self._ledger.commands < wanted:
            if time.monotonic() > deadline or self._failure is not None:
                raise TimeoutError(f"{self!r}: {commands} more commands did not come") from self._failure
            time.sleep(POLL_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # Inside trio

    async def finish(self) -> Statistics:
        """stop() for a Traffic whose run() is a task of this loop, or whose thread works against this loop."""
        self._stopping = True
        await trio.to_thread.run_sync(self._finished.wait, STOP_TIMEOUT_S)
        return await trio.to_thread.run_sync(self.stop)

    async def run(self) -> None:
        """All clients, until stopped; then the sums."""
        try:
            templates = await self._prepare()
            async with trio.open_nursery() as nursery:
                for index in range(self._clients):
                    nursery.start_soon(self._live, self._client(index, templates))
            await self._add_up()
        finally:
            self._finished.set()

    # Results

    def statistics(self) -> Statistics:
        return self._ledger.statistics()

    def reset_longest(self) -> None:
        """From now on `longest_ms` counts anew: call it before what may make clients wait."""
        self._ledger.longest_ms = 0.0

    def assert_clean(self) -> None:
        """No finding, and something was done at all."""
        found = self.statistics()
        assert found.unexpected == 0, f"{self!r}:\n" + "\n".join(found.findings)
        assert found.commands > 0, "the traffic sent nothing"

    # How

    async def _prepare(self) -> dict[str, tuple[int, list[Template]]]:
        """Forgets what a former traffic left to be checked; leaves out what a server does not know."""
        parsed = {group: (weight, parse(lines)) for group, (weight, lines) in TEMPLATES.items()}
        names = sorted({bytes(line[0]) for _, lines in parsed.values() for line in lines if isinstance(line[0], bytes)})
        async with await Connection.open(self._url) as connection:
            for db in self._dbs:
                await connection.exchange([["SELECT", db], ["DEL", *self._checked_keys()]])
        known = set(names)
        for url in self._judges:
            async with await Connection.open(url) as connection:
                (infos,) = await connection.exchange([["COMMAND", "INFO", *names]])
            known &= {name for name, info in zip(names, infos, strict=True) if info}
        chosen = set(self._groups).intersection(parsed) or parsed.keys()  # transactions alone draw from all
        return {group: (parsed[group][0], [line for line in parsed[group][1] if line[0] in known]) for group in chosen}

    def _checked_keys(self) -> list[str]:
        own = [f"own:{index}:{what}" for index in range(self._clients) for what in ("value", "counter")]
        return [f"{self._prefix}chk:{name}" for name in ("total", "watched", "jobs", *own)]

    def _client(self, index: int, templates: dict[str, tuple[int, list[Template]]]) -> Client:
        rng = Random(f"{self._seed}:{index}")
        filler = Filler(rng, self._prefix, self._hot, self._dbs[0], self._dbs, f"c{index}")
        return Client(index, self._url, filler, self._ledger, templates)

    async def _live(self, client: Client) -> None:
        moves, weights = self._moves()
        pause = self._clients / self._rate if self._rate else 0.0
        try:
            while not self._stopping:
                (group,) = client.rng.choices(moves, weights)
                await client.step(client.rng.choice(group))
                await trio.sleep(client.rng.uniform(0.5, 1.5) * pause)
        finally:
            await client.close()

    def _moves(self) -> tuple[list[tuple[Move, ...]], list[int]]:
        table: dict[str, tuple[int, tuple[Move, ...]]] = {
            **{group: (weight, (single(group),)) for group, (weight, _) in TEMPLATES.items()},
            **MOVES,
        }
        chosen = [table[group] for group in self._groups]
        return [moves for _, moves in chosen], [weight for weight, _ in chosen]

    async def _add_up(self) -> None:
        try:
            left = await self._left_jobs_and_sums()
        except Broken as error:
            self._ledger.lost("sums", str(error))
            return
        ledger = self._ledger
        lost = ledger.pushed - ledger.popped - left
        if len(lost) > ledger.unsure["pop"]:
            ledger.finding(f"sums: {len(lost)} jobs were lost: {sorted(lost)[:5]}")
        if invented := (ledger.popped | left) - ledger.sent:
            ledger.finding(f"sums: {len(invented)} jobs came that nobody sent: {sorted(invented)[:5]}")

    async def _left_jobs_and_sums(self) -> set[bytes]:
        left: set[bytes] = set()
        total, watched, jobs = (f"{self._prefix}chk:{name}" for name in ("total", "watched", "jobs"))
        async with await Connection.open(self._url) as connection:
            for db in self._dbs:
                questions: list[Command] = [["SELECT", db], ["GET", total], ["GET", watched], ["LRANGE", jobs, 0, -1]]
                _, incremented, committed, waiting = await connection.exchange(questions)
                left.update(waiting)
                replies = sum(1 for where, _ in self._ledger.totals if where == db)
                self._sum("total", f"INCRs in db {db}", replies, int(incremented or 0))
                transactions = f"committed WATCH transactions in db {db}"
                self._sum("watched", transactions, self._ledger.watched[db], int(committed or 0))
        return left

    def _sum(self, what: str, text: str, counted: int, stored: int) -> None:
        self._ledger.checks += 1
        if not counted <= stored <= counted + self._ledger.unsure[what]:
            self._ledger.finding(f"sums: {text}: {counted} were answered, {stored} are stored")


def _url(server: HasUrl | str) -> str:
    return server if isinstance(server, str) else server.url
