"""What the tests of replicate and compare share: runs in this process (quick) or as the command (real)."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

import crossfade
from backfill import cli_compare, cli_copy
from backfill.direct.checkpoint import Checkpoint, default_name, identity
from backfill.direct.comparing import ComparePlan, Comparison
from backfill.direct.comparing_progress import Report
from backfill.direct.replicate import Mode, Plan, Replication
from backfill.direct.selection import Selection
from backfill.url import Url, parse_url
from tests.proxies import CROSSFADE, ROOT, Result
from tests.servers import Server

EVERYTHING = Selection()


def replication(source: Any, target: Any, folder: Path, **options: Any) -> Replication:
    """One run, not begun. Servers or URLs; the checkpoint is in `folder`."""
    plan = Plan(_url(source), _url(target), **options)
    which = identity(plan.source, plan.target, plan.selection, plan.mode.value)
    return Replication(plan, Checkpoint(folder / default_name(which), which))


def _url(server: Any) -> Url:
    return parse_url(server if isinstance(server, str) else server.url)


def replicate(source: Any, target: Any, folder: Path, **options: Any) -> dict[str, Any]:
    """A run to its end, in this process: its status."""
    run = replication(source, target, folder, **options)
    trio.run(run.run)
    return run.status()


def compare(source: Any, target: Any, selection: Selection = EVERYTHING, **options: Any) -> Report:
    """A comparison to its end, in this process."""
    options.setdefault("pause", 0.05)
    comparison = Comparison(ComparePlan(_url(source), _url(target), selection, **options))
    trio.run(comparison.run)
    return comparison.report


async def follow(run: Replication, meanwhile: Callable[[], Awaitable[None]], *, timeout: float = 30.0) -> None:
    """A live run while something else happens; cancelled when that is done."""
    with trio.fail_after(timeout):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            await meanwhile()
            nursery.cancel_scope.cancel()


async def converged(run: Replication) -> None:
    """Until the run says that both sides are equal, of a moment after this call."""
    seen = run.following
    if seen is not None:
        await trio.sleep(0.15)  # what was written just before must have been told: nothing else could be waited for
    while not (run.following is not None and run.following.converged):
        await trio.sleep(0.02)


def run_here(monkeypatch: pytest.MonkeyPatch, *args: str) -> Result:
    """A command of the CLI in this process, which is ten times as quick."""
    for module in (cli_compare, cli_copy):
        monkeypatch.setattr(module, "setproctitle", lambda title: None)
    outcome = CliRunner().invoke(crossfade.main, args)
    return Result(args, outcome.exit_code, outcome.stdout, outcome.stderr)


def live(source: Any, target: Any, folder: Path, **options: Any) -> Replication:
    return replication(source, target, folder, mode=Mode.LIVE, **options)


class Command:
    """`crossfade replicate` as a process, to be killed."""

    def __init__(self, *args: str) -> None:
        self._process = subprocess.Popen(
            [*CROSSFADE, *args], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def interrupt(self) -> tuple[int, str, str]:
        self._process.terminate()
        return self.wait()

    def wait(self, timeout: float = 50.0) -> tuple[int, str, str]:
        out, err = self._process.communicate(timeout=timeout)
        return self._process.returncode, out, err

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def fill_with_special_keys(server: Server) -> None:
    """What is easily lost: empty values, binary names, infinities, streams without entries, deleted pending ids..."""
    with server.client(single_connection_client=True) as client:
        client.response_callbacks.clear()
        for words in SPECIAL:
            client.execute_command(*words)


SPECIAL: tuple[tuple[Any, ...], ...] = (
    ("SET", b"", b""),
    ("SET", b"\x00\xff\r\n", b"\x00" * 100),
    ("SET", "until", "v", "PX", 100_000_000),
    ("SET", "number", 12345),
    ("SETRANGE", "holes", 5000, "x"),
    ("PFADD", "hll", *range(500)),
    ("RPUSH", "list", b"", "a", 1, b"\xff", "x" * 5000),
    ("SADD", "ints", 1, 2, 3),
    ("SADD", "set", "a", b"", b"\x00"),
    ("ZADD", "zset", "inf", "a", "-inf", "b", "0.1", "c", "1e-300", "d", "17", b""),
    ("HSET", "hash", "f", "", b"", "v", b"\x00", b"\xff"),
    ("GEOADD", "geo", "13.361389", "38.115556", "Palermo"),
    ("XADD", "stream", "5-1", "f", "v"),
    ("XADD", "stream", "5-2", "f", "v", "f", "w"),
    ("XADD", "stream", "6-0", "f", "v"),
    ("XGROUP", "CREATE", "stream", "g", "0"),
    ("XREADGROUP", "GROUP", "g", "alice", "COUNT", "2", "STREAMS", "stream", ">"),
    ("XDEL", "stream", "6-0"),
    ("XADD", "emptied", "1-1", "f", "v"),
    ("XDEL", "emptied", "1-1"),
    ("XGROUP", "CREATE", "made", "g", "$", "MKSTREAM"),
    ("SELECT", 3),
    ("SET", "elsewhere", 1),
    ("HSET", "until", "f", "v"),
    ("PEXPIRE", "until", 100_000_000),
    ("SELECT", 0),
)
