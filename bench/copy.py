"""`python -m bench.copy`: `crossfade replicate` beside a minimal pipelined DUMP/RESTORE loop and `redis-cli --rdb`.

All in one run, one after the other in every round, each in a process of its own whose CPU time and peak memory the
operating system tells. redis-cli only reads the source and writes a file: what the source itself can give at most.
Writes its section of docs/performance.md.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click
import redis

from backfill.embedded import Server
from bench import machine
from bench.processes import ROOT

MARK = "<!-- From here on: written by bench.copy, kept by bench -->"
LOOP, SUBJECT, RDB = "loop", "crossfade", "redis-cli --rdb"
BATCH = 2000
# The peak memory of a process begins with that of the one that started it: so a small one does.
LAUNCHER = """
import os, sys, time
began = time.monotonic()
child = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
print(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


@dataclass(frozen=True, slots=True)
class Run:
    seconds: float
    cpu: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class DataSet:
    """A source to be copied. `size`: bytes of all values, as DUMP has them."""

    name: str
    keys: int
    fill: Callable[[redis.Redis, int], None]


def _small(client: redis.Redis, keys: int) -> None:
    client.execute_command("DEBUG", "POPULATE", keys, "key", 64)


def _mixed(client: redis.Redis, keys: int) -> None:
    """Of 100 keys 60 strings of up to 2 KB, 10 each of hashes, lists, sets and sorted sets of 20 elements; every fifth
    has a TTL; and three big ones: a hash and a sorted set of 200,000 elements, a string of 20 MB."""
    rng = Random(1)
    with client.pipeline(transaction=False) as pipe:
        for number in range(keys - 3):
            for command in _key(rng, number):
                pipe.execute_command(*command)
            if number % BATCH == 0:
                pipe.execute()
        for start in range(0, 200_000, BATCH):
            pipe.hset("big:hash", mapping={f"field:{n}": f"value:{n}" for n in range(start, start + BATCH)})
            pipe.zadd("big:zset", {f"member:{n}": n / 7 for n in range(start, start + BATCH)})
            pipe.execute()
        pipe.set("big:string", rng.randbytes(20_000_000))
        pipe.execute()


def _key(rng: Random, number: int) -> Iterator[Sequence]:
    kind, name = number % 10, f"key:{number}"
    words = [f"element:{rng.randrange(10**6)}" for _ in range(20)]
    if kind < 6:
        yield "SET", name, rng.randbytes(rng.randrange(20, 2000))
    elif kind == 6:
        yield "HSET", name, *(part for word in words for part in (word, number))
    elif kind == 7:
        yield "RPUSH", name, *words
    elif kind == 8:
        yield "SADD", name, *words
    else:
        yield "ZADD", name, *(part for word in words for part in (rng.random(), word))
    if number % 5 == 0:
        yield "PEXPIRE", name, 10**8


def _measure(command: Sequence[str], folder: Path) -> Run:
    with (folder / "out").open("wb") as out:
        words = [sys.executable, "-S", "-c", LAUNCHER, *command]
        done = subprocess.run(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, check=False
        )
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-500:]}")
    seconds, cpu, peak = map(float, done.stderr.splitlines()[-1].split())
    return Run(seconds, cpu, peak / 1024)


def _rounds(data: DataSet, flavours: tuple[str, str], rounds: int, folder: Path) -> tuple[dict[str, list[Run]], int]:
    found: dict[str, list[Run]] = {}
    size = 0
    with Server(flavours[0], config=_debug(flavours[0])) as source, Server(flavours[1]) as target:
        with redis.Redis(port=source.port) as client:
            data.fill(client, data.keys)
        commands = {
            LOOP: [sys.executable, "-m", "bench.copy_loop", str(source.port), str(target.port)],
            SUBJECT: [
                *(sys.executable, "-m", "crossfade", "replicate", source.url, target.url),
                *("--state-dir", str(folder / "state"), "--json"),
            ],
        }
        if shutil.which("redis-cli") is not None:
            commands[RDB] = ["redis-cli", "-p", str(source.port), "--rdb", str(folder / "dump.rdb")]
        for _ in range(rounds):
            for name, command in commands.items():
                with redis.Redis(port=target.port, socket_timeout=60) as client:
                    client.flushall()
                    found.setdefault(name, []).append(_measure(command, folder))
                    if name != RDB and client.dbsize() != data.keys:
                        raise click.ClickException(f"{name} copied {client.dbsize():,} of {data.keys:,} keys")
                if name == SUBJECT:
                    size = json.loads((folder / "out").read_text())["bytes"]
    return found, size


def _debug(flavour: str) -> dict[str, str]:
    return {} if flavour == "redis-6.2" else {"enable-debug-command": "local"}


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def _rows(data: DataSet, runs: dict[str, list[Run]], size: int) -> Iterator[str]:
    for name, each in runs.items():
        ratios = [limit.seconds / own.seconds for limit, own in zip(runs[LOOP], each, strict=True)]
        told = "" if name == LOOP else f"{_middle(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        seconds = _middle([run.seconds for run in each])
        cells = (
            f"{data.name}, {data.keys:,} keys, {size / 1e6:,.0f} MB",
            name,
            f"{data.keys / seconds:,.0f}",
            f"{size / 1e6 / seconds:,.0f}",
            told,
            f"{_middle([run.cpu for run in each]) / data.keys * 1e6:.1f}",
            f"{max(run.peak_mb for run in each):.0f}",
        )
        yield f"| {' | '.join(cells)} |"


def _section(
    command: str, rounds: int, flavours: tuple[str, str], rows: list[str], facts: dict[str, str], start: float
) -> str:
    return f"""{MARK}

## Copying without a proxy

Written by `{command}`: `crossfade replicate` beside a loop of SCAN, PTTL and DUMP, RESTORE in pipelines
of 1,000 keys (`bench/copy_loop.py`), which bounds no memory and checks nothing, and beside `redis-cli --rdb`,
which only reads. {flavours[0]} to {flavours[1]}, {rounds} rounds, all three right after each other in each.
Time and memory are those of whole processes, start included ({start:.1f} s of crossfade's). A ratio above 1 is faster
than the loop. Peak memory is the largest of all rounds. Source, target and copy work at the same time: where
others want the cores, too, that loses more than the loop does, which does one thing after the other.

{facts["processor"].partition(" (")[0]}, load before {facts["load before"]}, {facts["date"]}.

| data | | keys/s | MB/s | keys/s ÷ loop | CPU µs per key | peak memory, MB |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keys", type=click.IntRange(1000), default=1_000_000, show_default=True, help="Of the largest set.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--source", default="redis-6.2", show_default=True)
@click.option("--target", default="valkey-9.1", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=ROOT / "docs" / "performance.md")
def main(keys: int, rounds: int, source: str, target: str, out: Path) -> None:
    """How fast keys go straight from one server to another, beside the practical limit."""
    sets = [DataSet("small", keys, _small), DataSet("small", keys // 10, _small), DataSet("mixed", keys // 5, _mixed)]
    rows: list[str] = []
    facts = machine.describe()  # before: the load is not ours
    with tempfile.TemporaryDirectory(prefix="crossfade-bench-") as name:
        help_text = [sys.executable, "-m", "crossfade", "replicate", "--help"]
        start = _middle([_measure(help_text, Path(name)).seconds for _ in range(rounds)])
        for data in sets:
            runs, size = _rounds(data, (source, target), rounds, Path(name))
            rows += _rows(data, runs, size)
            click.echo("\n".join(rows[-len(runs) :]))
    options = [f"--keys {keys}"] if keys != 1_000_000 else []
    command = " ".join(["python -m bench.copy", *options, *([f"--rounds {rounds}"] if rounds != 3 else [])])
    before = out.read_text().partition(MARK)[0].rstrip() if out.exists() else "# Performance"
    out.write_text(f"{before}\n\n{_section(command, rounds, (source, target), rows, facts, start)}")
    click.echo(f"Written: {out}")


if __name__ == "__main__":
    main()
