"""The demo's story: two servers, a data set, the proxy, an application that never stops, and the migration under it.

Owns the order of things and what is said about them. Whatever is started here is ended here, also when the story is
interrupted in the middle.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from backfill.client import Client, ReplyError
from backfill.embedded import Binary, Server, free_port
from backfill.url import parse_url
from proxy.demo import data
from proxy.demo.account import Account, Trouble
from proxy.demo.actors import Application, Child, Operator, proxy_process, running
from proxy.demo.compare import compare
from proxy.demo.view import View

POLL_SECONDS = 0.1
REFRESH_SECONDS = 0.1
JOB_SECONDS = 300.0  # for a backfill or a verify
BATCH = 500  # commands of the data set a round trip
AROUND_FLIP_SECONDS = 0.2  # commands that end so long before or after a flip are "around" it
# What a managed cache does not have either: nothing here may need it.
WITHHELD = ("CONFIG", "PSYNC", "REPLICAOF", "DEBUG", "SYNC", "SLAVEOF", "BGSAVE", "MIGRATE")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to play. `beat`: seconds for which the application just works, between two steps."""

    source: Binary
    target: Binary
    keys: int = data.DEFAULT_KEYS
    beat: float = 1.5


def describe(binary: Binary) -> str:
    """ "Redis 6.2.14"."""
    return f"{binary.product.capitalize()} {binary.release}"


class Story:
    """One performance. `run` it once; the outcome is in `account`."""

    def __init__(self, plan: Plan, view: View, account: Account) -> None:
        self._plan = plan
        self._view = view
        self._account = account
        self._application: Application | None = None

    async def run(self) -> None:
        """From the first server to the last comparison. Errors: Trouble, EmbeddedError, BackfillError."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crossfade-demo-")))
            stack.enter_context(self._view.live())
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(self._refresh)
            source, target = await self._servers(stack)
            await self._data_set(source)
            proxy, operator, url = await self._proxy(stack, nursery, source, target, folder)
            await self._start_application(stack, nursery, url, folder)
            await self._migrate(operator)
            await self._rest(operator, proxy, source, target)
            nursery.cancel_scope.cancel()
        self._account.complete = True

    async def _refresh(self) -> None:
        while True:
            if self._application is not None:
                self._view.pulse = pulse(self._application)
            self._view.refresh()
            await trio.sleep(REFRESH_SECONDS)

    # -- the scene -----------------------------------------------------------------------------------------------------

    async def _servers(self, stack: AsyncExitStack) -> tuple[Server, Server]:
        plan, view = self._plan, self._view
        view.section("Two servers")
        source = Server(plan.source.name, config={f"rename-command {name}": "" for name in WITHHELD})
        target = Server(plan.target.name)
        await stack.enter_async_context(running(source))
        await stack.enter_async_context(running(target))
        view.say(
            f"Source: {describe(plan.source)} on port {source.port}, without {', '.join(WITHHELD[:4])}, as managed "
            "caches are."
        )
        view.say(f"Target: {describe(plan.target)} on port {target.port}, empty.")
        return source, target

    async def _data_set(self, source: Server) -> None:
        view, began = self._view, time.monotonic()
        view.section("A data set")
        view.say(
            "A web shop's keys: sessions and page fragments with TTLs, carts, counters, leaderboards, queues, feeds "
            "with consumer groups and pending entries, HyperLogLogs, bitmaps, and a few keys of some MB."
        )
        async with Client.open(parse_url(source.url)) as client:
            await self._write(client)
            self._account.keys_written = data.total(self._plan.keys)
            memory = (await client.call(b"INFO", b"memory")).decode().split("used_memory:")[1].split("\r")[0]
        view.clear()
        view.outcome(
            f"{self._account.keys_written:,} keys in 2 dbs written to the source, {int(memory) / 1e6:,.0f} MB there, "
            f"in {time.monotonic() - began:.1f} s."
        )

    async def _write(self, client: Client) -> None:
        total, batch, chosen, begun = data.total(self._plan.keys), [], 0, 0
        for begun, db, command in data.make(self._plan.keys):
            if db != chosen:
                batch.append([b"SELECT", b"%d" % db])
                chosen = db
            batch.append(command)
            if len(batch) >= BATCH:
                await send(client, batch)
                batch = []
                self._view.progress("data set", begun, total)
        await send(client, batch)

    async def _proxy(
        self, stack: AsyncExitStack, nursery: trio.Nursery, source: Server, target: Server, folder: Path
    ) -> tuple[Child, Operator, str]:
        view, listen = self._view, f"127.0.0.1:{free_port()}"
        view.section("The proxy")
        options = f"--source {source.url}", f"--target {target.url}", f"--listen {listen}"
        view.command(" \\\n      ".join(["crossfade proxy", *options]))
        child, operator = await stack.enter_async_context(
            proxy_process(nursery, source.url, target.url, listen, folder)
        )
        view.say(
            "It passes every command on to the source, and mirrors every write to the target in the order in which "
            "the source executed it."
        )
        return child, operator, f"redis://{listen}"

    async def _start_application(self, stack: AsyncExitStack, nursery: trio.Nursery, url: str, folder: Path) -> None:
        view = self._view
        view.section("The application")
        application = await stack.enter_async_context(Application.start(nursery, url, folder))
        self._application = application
        view.say(
            f"A process with redis-py. All that has changed for it is the connection string, now {url}. It writes and "
            "reads all the time and checks every reply: a counter never goes back, what was written is what is "
            "read, a job comes out of its queue once, a message arrives once. It does not retry, so every error "
            "counts."
        )
        await trio.sleep(self._plan.beat)
        view.outcome(f"Working: {application.rate:,.0f} commands/s, {application.last['errors']:,} errors.")

    # -- the migration -------------------------------------------------------------------------------------------------

    async def _migrate(self, operator: Operator) -> None:
        await self._backfill(operator)
        await self._verify(
            operator,
            "Verify",
            "Reads every key on both sides at the same point of the order of writes, so "
            "that a difference is a difference although the application goes on writing.",
        )
        await self._flip(
            operator,
            "Flip",
            "From now on the target serves, for all clients at once; connections, waiting "
            "workers and subscriptions stay. The source goes on receiving every write, so that the way "
            "back stays open.",
        )
        await self._verify(operator, "Verify again", "The target serves: is the source still its equal?")
        await self._flip(operator, "Flip back", "The same command, as if the target had disappointed.")
        await self._verify(operator, "Verify a last time", "The source serves again.")

    async def _backfill(self, operator: Operator) -> None:
        view = self._view
        view.section("Backfill")
        view.command("crossfade backfill")
        view.say("Copies the keys that were there before the proxy, while the application goes on changing them.")
        await operator.ask("BACKFILL")
        end = await self._follow(operator, "backfill", lambda now: (now["copied"], now["total"]))
        self._account.take_backfill(end)
        rate = end["copied"] / end["seconds"] if end["seconds"] else 0
        view.outcome(
            f"{end['copied']:,} keys copied in {end['seconds']:.1f} s ({rate:,.0f} keys/s), {end['failed']:,} failed.",
            end["state"] == "done" and not end["failed"],
        )

    async def _verify(self, operator: Operator, title: str, why: str) -> None:
        view = self._view
        view.section(title)
        view.command("crossfade verify")
        view.say(why)
        await operator.ask("VERIFY")
        end = await self._follow(operator, "verify", lambda now: (now["checked"], now["total"] // 2))
        self._account.take_verify(end, await operator.ask("FINDINGS"))
        different = self._account.verifies[-1]["different"]
        view.outcome(
            f"{end['checked']:,} keys compared in {end['seconds']:.1f} s, {different:,} different.",
            end["state"] == "done" and not different,
        )

    async def _flip(self, operator: Operator, title: str, why: str) -> None:
        view, application = self._view, self._application
        assert application is not None
        view.section(title)
        view.command("crossfade flip")
        await trio.sleep(self._plan.beat)
        usual, began = application.usual_ms(), time.monotonic()
        outcome = await operator.ask("FLIP")
        ended = time.monotonic()
        await trio.sleep(max(self._plan.beat, 3 * AROUND_FLIP_SECONDS))
        slowest = round(application.slowest_ms(began - AROUND_FLIP_SECONDS, ended + AROUND_FLIP_SECONDS), 1)
        self._account.take_flip(outcome, slowest, usual)
        if not outcome["flipped"]:
            view.outcome(f"Refused: {'; '.join(outcome['reasons'])}", good=False)
            return
        view.say(why)
        view.outcome(
            f"Pause: {outcome['pause_ms']:.1f} ms. Longest command of the application around it: {slowest:.1f} ms "
            f"(usual before it: {usual:.1f} ms)."
        )

    async def _follow(
        self, operator: Operator, key: str, numbers: Callable[[dict[str, Any]], tuple[int, int]]
    ) -> dict[str, Any]:
        """Show the progress of a job until it ends; its last status. Errors: Trouble."""
        with trio.move_on_after(JOB_SECONDS):
            while True:
                status: dict[str, Any] = (await operator.ask("STATUS"))[key]
                if status["state"] != "running":
                    self._view.clear()
                    return status
                done, total = numbers(status)
                if total:
                    self._view.progress(key, done, max(done, total))
                await trio.sleep(POLL_SECONDS)
        raise Trouble(f"the {key} has not ended after {JOB_SECONDS:.0f} s")

    # -- at rest -------------------------------------------------------------------------------------------------------

    async def _rest(self, operator: Operator, proxy: Child, source: Server, target: Server) -> None:
        view, application = self._view, self._application
        assert application is not None
        view.section("At rest")
        self._account.take_application(await application.stop())
        self._application, view.pulse = None, ""
        view.say("The application has finished what it had begun and stopped.")
        view.command("crossfade stop")
        await operator.ask("STOP")
        code = await proxy.wait(JOB_SECONDS)
        if code:
            self._account.problems.append(f"the proxy ended with exit code {code}: {proxy.last_words}")
        view.say(
            "Now nothing stands between. The demo reads every key of both servers itself, with ordinary commands and "
            "none of the proxy's code for it."
        )
        began = time.monotonic()
        found = await compare(
            parse_url(source.url), parse_url(target.url), lambda done, total: view.progress("compare", done, total)
        )
        view.clear()
        found.seconds = round(time.monotonic() - began, 3)
        self._account.take_comparison(found)
        different = found.different.total()
        view.outcome(f"{found.source.total():,} keys, {different:,} different, {found.seconds:.1f} s.", not different)


def pulse(application: Application) -> str:
    """The application in one line."""
    last = application.last
    return (
        f"{application.rate:,.0f} commands/s, {last['commands']:,} in all, {last['errors']:,} errors, "
        f"{last['wrong']:,} wrong"
    )


async def send(client: Client, batch: list[list[bytes]]) -> None:
    """Commands of which none may fail. Errors: Trouble."""
    for command, reply in zip(batch, await client.pipeline(batch), strict=True):
        if isinstance(reply, ReplyError):
            raise Trouble(f"the source refuses {b' '.join(command[:2]).decode()}: {reply}")
