"""`python -m bench.beside`: a backfill through the proxy beside live traffic, and what the traffic notices of it.

The traffic is open-loop (`bench.latency`), from a process of its own, and reads and writes the very keys that are
copied. Every round has a proxy of its own with an empty target: traffic alone, traffic while everything is copied, and
right before or after them the practical limit, the minimal loop of `bench.copy_loop` straight from server to server.
All that is said is a ratio of figures from the same round.
"""

import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import redis

from backfill.embedded import Server, free_port
from bench import latency, machine
from bench.flips import Talk
from bench.latency import Latency
from bench.load import pack
from bench.measure import cpu_seconds
from bench.processes import ROOT, Running, process
from bench.runner import SOURCE, TARGET

GOAL_SPEED, GOAL_P99 = 0.5, 2.0
CONNECTIONS = 50
VALUE_BYTES = 64
WARM_UP_S = 1.0  # of the traffic, before anything counts
ALONE_S = 4.0
LOOK_S = 0.25  # how often it is looked whether the backfill has ended; a look costs clients a millisecond
PROGRAM = [sys.executable, "-m", "crossfade"]


@dataclass(frozen=True, slots=True)
class Load:
    """Commands a second, on keys of `DEBUG POPULATE`."""

    rate: int
    keys: int

    def commands(self) -> list[bytes]:
        """SET and GET in turns, of keys from everywhere."""
        step = 7919  # prime: every key has its turn
        names = [b"key:%d" % (n // 2 * step % self.keys) for n in range(min(2 * self.keys, 100_000))]
        value = b"y" * VALUE_BYTES
        return [pack((b"GET", name) if n % 2 else (b"SET", name, value)) for n, name in enumerate(names)]


@dataclass(frozen=True, slots=True)
class Round:
    """Keys a second, latencies, and the proxy's CPU seconds per second."""

    loop: float
    backfill: float
    alone: Latency
    beside: Latency
    direct: Latency
    cpu_alone: float
    cpu_beside: float

    @property
    def speed(self) -> float:
        return self.backfill / self.loop

    @property
    def slower(self) -> float:
        return self.beside.p99 / self.alone.p99


class Traffic:
    """Traffic from another process, until `stop`."""

    def __init__(self, port: int, load: Load) -> None:
        self._going: Any = multiprocessing.RawValue("b", 1)
        self._told: Any = multiprocessing.SimpleQueue()
        self._process = multiprocessing.Process(target=self._run, args=(port, load), daemon=True)
        self._process.start()

    def _run(self, port: int, load: Load) -> None:
        try:
            more = lambda sent: bool(self._going.value)  # noqa: E731
            self._told.put(latency.drive(port, load.commands(), load.rate, more, CONNECTIONS))
        except (latency.LoadError, OSError) as problem:
            self._told.put(str(problem))

    def stop(self) -> list[tuple[float, float]]:
        """What became of each command. Errors: ClickException."""
        self._going.value = 0
        told = self._told.get()
        self._process.join()
        if isinstance(told, str):
            raise click.ClickException(told)
        found: list[tuple[float, float]] = told
        return found


def _between(samples: list[tuple[float, float]], began: float, ended: float) -> Latency:
    return latency.summary([took for due, took in samples if began <= due < ended])


@contextmanager
def _proxy(source: Server, target: Server, directory: Path) -> Iterator[Running]:
    port = free_port()
    urls = ["--source", source.url, "--target", target.url]
    command = [*PROGRAM, "proxy", *urls, "--listen", f"127.0.0.1:{port}", "--state-dir", str(directory / "state")]
    with process("crossfade", command, port, directory, "") as running:
        yield running


def _alone(port: int, load: Load, pid: int | None) -> tuple[Latency, float]:
    traffic = Traffic(port, load)
    time.sleep(WARM_UP_S)
    began, used = time.perf_counter(), 0.0 if pid is None else cpu_seconds(pid)
    time.sleep(ALONE_S)
    ended, now_used = time.perf_counter(), 0.0 if pid is None else cpu_seconds(pid)
    return _between(traffic.stop(), began, ended), (now_used - used) / (ended - began)


def _beside(running: Running, load: Load, directory: Path, keys: int) -> tuple[float, Latency, float]:
    """Keys a second of a backfill, the traffic's latencies meanwhile, CPU. It is asked for at the admin socket: a
    command line that starts at the same time would be one more load on few cores."""
    traffic = Traffic(running.port, load)
    time.sleep(WARM_UP_S)
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(str(directory / "state" / "admin.sock"))
        admin = Talk(sock)
        began, used = time.perf_counter(), cpu_seconds(running.pid)
        admin.ask(b"BACKFILL")
        while (told := json.loads(admin.ask(b"STATUS"))["backfill"])["state"] == "running":
            time.sleep(LOOK_S)
    ended, now_used = time.perf_counter(), cpu_seconds(running.pid)
    samples = traffic.stop()
    if told["state"] != "done" or told["copied"] != keys:
        raise click.ClickException(f"the backfill copied {told['copied']:,} of {keys:,} keys: {told['problem']}")
    seconds = ended - began
    return keys / seconds, _between(samples, began, ended), (now_used - used) / seconds


def _loop(source: Server, target: Server, keys: int) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "bench.copy_loop", str(source.port), str(target.port)]
    subprocess.run(command, cwd=ROOT, check=True)
    return keys / (time.perf_counter() - began)


def _flush(target: Server) -> None:
    with redis.Redis(port=target.port, socket_timeout=60) as client:
        client.flushall()


def _round(source: Server, target: Server, load: Load, number: int) -> Round:
    """Alone comes before beside in one round, after it in the next."""
    keys = load.keys
    with TemporaryDirectory(prefix="crossfade-bench-") as name:
        _flush(target)
        loop = _loop(source, target, keys)
        direct, _ = _alone(source.port, load, None)
        _flush(target)
        with _proxy(source, target, Path(name)) as running:
            if number % 2:
                backfill, beside, cpu_beside = _beside(running, load, Path(name), keys)
                alone, cpu_alone = _alone(running.port, load, running.pid)
            else:
                alone, cpu_alone = _alone(running.port, load, running.pid)
                backfill, beside, cpu_beside = _beside(running, load, Path(name), keys)
    return Round(loop, backfill, alone, beside, direct, cpu_alone, cpu_beside)


def measure(keys: int, rate: int, rounds: int) -> tuple[list[Round], dict[str, str]]:
    """All rounds, and on what they were made."""
    facts = machine.describe()  # before: the load is not ours
    load = Load(rate, keys)
    with ExitStack() as stack:
        source, target = (stack.enter_context(Server(flavour)) for flavour in (SOURCE, TARGET))
        with redis.Redis(port=source.port) as client:
            client.execute_command("DEBUG", "POPULATE", keys, "key", VALUE_BYTES)
        found = []
        for number in range(rounds):
            found.append(_round(source, target, load, number))
            click.echo(f"round {number + 1}: {found[-1].speed:.2f} of the loop, p99 {found[-1].slower:.2f} times")
        return found, {**facts, **machine.versions(source, target, [])}


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def _latency_row(name: str, each: list[Latency]) -> str:
    cells = [statistics.median(getattr(found, at) for found in each) for at in ("p50", "p99", "p999")]
    return f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |"


def _verdict(kept: bool) -> str:
    return "**kept**" if kept else "**NOT kept**"


def report(rounds: list[Round], facts: dict[str, str], command: str, load: Load) -> str:
    """The figures as Markdown."""
    speeds, slower = [each.speed for each in rounds], [each.slower for each in rounds]
    loops, backfills = [each.loop for each in rounds], [each.backfill for each in rounds]
    cpu = [each.cpu_beside for each in rounds]
    return "\n".join(
        [
            "# A backfill beside live traffic",
            "",
            f"Written by `{command}`: {load.keys:,} small keys go through the proxy while {load.rate:,} commands/s "
            f"(SET and GET in turns, of the very keys that are copied; {CONNECTIONS} connections; open-loop, from a "
            "process of their own) go on. "
            f"{len(rounds)} rounds, in each the traffic alone, the traffic beside the backfill, and the practical "
            "limit: a minimal loop of SCAN, PTTL and DUMP, RESTORE straight from server to server, with no traffic "
            "(`bench/copy_loop.py`). Medians, and the range of the ratios.",
            "",
            "| | |",
            "| --- | --- |",
            f"| keys/s of the loop | {statistics.median(loops):,.0f} |",
            f"| keys/s of the backfill, start and end included | {statistics.median(backfills):,.0f} |",
            f"| backfill ÷ loop | {_spread(speeds)} |",
            f"| CPU of the proxy meanwhile, of one core | {statistics.median(cpu):.2f} |",
            f"| CPU of the proxy under the traffic alone | {statistics.median(r.cpu_alone for r in rounds):.2f} |",
            "",
            "| reply after, ms | p50 | p99 | p99.9 |",
            "| --- | --- | --- | --- |",
            _latency_row("without a proxy", [each.direct for each in rounds]),
            _latency_row("through the proxy, no backfill", [each.alone for each in rounds]),
            _latency_row("through the proxy, beside a backfill", [each.beside for each in rounds]),
            "",
            f"The bar for the speed (at least {GOAL_SPEED:g} of the loop) is "
            f"{_verdict(statistics.median(speeds) >= GOAL_SPEED)}: {_spread(speeds)}. The bar for the traffic (its "
            f"p99 at most {GOAL_P99:g} times what it is without a backfill) is "
            f"{_verdict(statistics.median(slower) <= GOAL_P99)}: {_spread(slower)}.",
            "",
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in facts.items() if name != "load generator"),
            "",
        ]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keys", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--rate", type=click.IntRange(1), default=5000, show_default=True, help="Commands per second meanwhile.")
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=ROOT / "docs" / "beside.md")
def main(keys: int, rate: int, rounds: int, out: Path) -> None:
    """What live traffic notices of a backfill, and how fast that is meanwhile."""
    found, facts = measure(keys, rate, rounds)
    command = f"python -m bench.beside --keys {keys} --rate {rate} --rounds {rounds}"
    text = report(found, facts, command, Load(rate, keys))
    out.write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
