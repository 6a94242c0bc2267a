"""The processes of the demo: the real proxy and the application; and the operator, who talks to the proxy.

A door: starts, watches and ends processes, each in a process group of its own (Ctrl-C is for the demo, which ends them
in its own order). A process that ends before it should is a Trouble, wherever the story is.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from backfill.client import Client, ReplyError
from backfill.embedded import Server
from backfill.errors import BackfillError
from backfill.url import Url
from proxy.demo.account import Trouble
from proxy.state import ADMIN_SOCKET

START_SECONDS = 20.0
END_SECONDS = 20.0  # for the proxy to settle, for the application to take the last jobs
KILL_SECONDS = 3.0
GRACE_SECONDS = 0.2
WATCHED_SECONDS = 90.0  # how far back the application's reports are kept
ROOT = Path(__file__).resolve().parents[2]  # where crossfade.py and its packages are


@asynccontextmanager
async def running(server: Server) -> AsyncGenerator[Server]:
    """An embedded server, for as long as the block lasts. Errors: EmbeddedError."""
    try:
        await trio.to_thread.run_sync(server.start)
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.stop)


class Child:
    """One process. Its stderr goes to `log`."""

    def __init__(self, process: trio.Process, title: str, log: Path) -> None:
        self.process = process
        self._title = title
        self._log = log
        self._may_end = False

    @classmethod
    @asynccontextmanager
    async def start(
        cls, nursery: trio.Nursery, title: str, command: list[str], log: Path, **pipes: int
    ) -> AsyncGenerator[Child]:
        """A started process, which is ended with the block, by force if need be."""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with log.open("wb") as stderr:
            process = await trio.lowlevel.open_process(
                command,
                stdin=pipes.get("stdin", subprocess.DEVNULL),
                stdout=pipes.get("stdout", subprocess.DEVNULL),
                stderr=stderr,
                process_group=0,
                env={**os.environ, "PYTHONPATH": path},
            )
        child = cls(process, title, log)
        try:
            nursery.start_soon(child._watch)
            yield child
        except Trouble:
            with trio.move_on_after(GRACE_SECONDS):  # its death may be the reason, and says more than what came of it
                await process.wait()
            raise
        finally:
            await child._end()

    async def _watch(self) -> None:
        code = await self.process.wait()
        if not self._may_end:
            raise self._died(code)

    def _died(self, code: int) -> Trouble:
        return Trouble(f"{self._title} has ended with exit code {code}: {self.last_words}")

    @property
    def last_words(self) -> str:
        """The end of its stderr, as one line."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"

    async def wait(self, seconds: float) -> int:
        """Its exit code, now that it should end by itself. Errors: Trouble."""
        self._may_end = True
        with trio.move_on_after(seconds):
            return await self.process.wait()
        raise Trouble(f"{self._title} does not end")

    async def _end(self) -> None:
        code = None if self._may_end else self.process.poll()
        self._may_end = True
        await self._end_by_force()
        if code is not None:
            raise self._died(code)

    async def _end_by_force(self) -> None:
        with trio.CancelScope(shield=True):
            for pipe in filter(None, (self.process.stdin, self.process.stdout)):
                await pipe.aclose()
            for how in (signal.SIGTERM, signal.SIGKILL):
                if self.process.poll() is not None:
                    return
                self.process.send_signal(how)
                with trio.move_on_after(KILL_SECONDS):
                    await self.process.wait()


class Operator:
    """Gives the running proxy the commands that `crossfade backfill`, `verify`, `flip` and `stop` give it."""

    def __init__(self, state_dir: Path) -> None:
        self._socket = state_dir / ADMIN_SOCKET

    async def ask(self, *args: str) -> Any:
        """The answer to one admin command. Errors: Trouble."""
        try:
            async with Client.open(Url(path=os.fspath(self._socket))) as client:
                reply = await client.call(*(arg.encode() for arg in args))
        except BackfillError as problem:
            raise Trouble(f"the proxy does not answer: {problem.text}") from None
        if isinstance(reply, ReplyError):
            raise Trouble(f"the proxy refuses {args[0]}: {reply}")
        return json.loads(reply) if reply[:1] in b"{[" else reply.decode()

    async def ready(self) -> None:
        """Wait until the proxy answers. Errors: Trouble."""
        deadline = trio.current_time() + START_SECONDS
        while trio.current_time() < deadline:
            if self._socket.exists():
                with suppress(Trouble):
                    await self.ask("PING")
                    return
            await trio.sleep(0.05)
        raise Trouble(f"the proxy is not ready after {START_SECONDS:.0f} s")


@asynccontextmanager
async def proxy_process(
    nursery: trio.Nursery, source: str, target: str, listen: str, folder: Path
) -> AsyncGenerator[tuple[Child, Operator]]:
    """The real thing: `crossfade proxy`, ready for connections."""
    state_dir = folder / "state"
    servers = ["--source", source, "--target", target, "--listen", listen, "--state-dir", str(state_dir)]
    command = [sys.executable, "-m", "crossfade", "proxy", *servers]
    async with Child.start(nursery, "the proxy", command, folder / "proxy.log") as child:
        operator = Operator(state_dir)
        await operator.ready()
        yield child, operator


class Application:
    """The application's process and what it reports."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._reports: deque[dict[str, Any]] = deque()
        self._changed = trio.Event()
        self.final: dict[str, Any] = {}

    @classmethod
    @asynccontextmanager
    async def start(cls, nursery: trio.Nursery, url: str, folder: Path) -> AsyncGenerator[Application]:
        """A working application: it has reported once. Errors: Trouble."""
        command = [sys.executable, "-P", str(Path(__file__).with_name("app.py")), url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        async with Child.start(nursery, "the application", command, folder / "app.log", **pipes) as child:
            application = cls(child)
            nursery.start_soon(application._listen)
            await application.next_report()
            yield application

    async def _listen(self) -> None:
        buffered = b""
        assert self._child.process.stdout is not None
        with suppress(trio.ClosedResourceError):  # the end of the story
            async for data in self._child.process.stdout:
                *lines, buffered = (buffered + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))

    def _take(self, report: dict[str, Any]) -> None:
        if "final" in report:
            self.final = report["final"]
        else:
            self._reports.append(report)
            while self._reports[0]["at"] < report["at"] - WATCHED_SECONDS:
                self._reports.popleft()
        self._changed.set()
        self._changed = trio.Event()

    async def next_report(self) -> None:
        """Wait for one more report. Errors: Trouble."""
        with trio.move_on_after(START_SECONDS) as scope:
            await self._changed.wait()
        if scope.cancelled_caught:
            raise Trouble(f"the application does not report: {self._child.last_words}")

    @property
    def last(self) -> dict[str, Any]:
        return self._reports[-1] if self._reports else {"commands": 0, "checks": 0, "errors": 0, "wrong": 0}

    @property
    def rate(self) -> float:
        """Commands a second, over the last second or so."""
        recent = list(self._reports)[-11:]
        seconds = recent[-1]["at"] - recent[0]["at"] if recent else 0.0
        return (recent[-1]["commands"] - recent[0]["commands"]) / seconds if seconds else 0.0

    def slowest_ms(self, since: float, until: float) -> float:
        """The longest command that ended between two moments of time.monotonic(), to a report's width."""
        width = 2 * REPORT_SECONDS
        return max((r["slowest_ms"] for r in self._reports if since <= r["at"] <= until + width), default=0.0)

    def usual_ms(self, seconds: float = 1.0) -> float:
        """The longest command of a tenth of a second, as it usually is (the median) of late."""
        since = time.monotonic() - seconds
        values = [report["slowest_ms"] for report in self._reports if report["at"] >= since]
        return round(statistics.median(values), 1) if values else 0.0

    async def stop(self) -> dict[str, Any]:
        """Let it finish what it has begun; its own account of itself. Errors: Trouble."""
        assert self._child.process.stdin is not None
        await self._child.process.stdin.aclose()
        await self._child.wait(END_SECONDS)
        with trio.move_on_after(KILL_SECONDS):
            while not self.final:
                await self._changed.wait()
        if not self.final:
            raise Trouble(f"the application gave no account of itself: {self._child.last_words}")
        return self.final


REPORT_SECONDS = 0.1  # how often the application reports
