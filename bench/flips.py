"""`python -m bench.flips`: how long clients wait when the sides are swapped, again and again, under load.

The pause is the proxy's own figure, from "no command is taken" to "commands are taken by the other side". Beside it,
from the same run: the round trip of a GET through the proxy under the same load, and how late the load's replies were.
The load is open: commands leave at a fixed rate, whether or not replies come, so that a pause cannot hide.
"""

import json
import multiprocessing
import socket
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import hiredis

from bench import latency, machine
from bench.load import pack
from bench.peers import Peer, started
from bench.processes import ROOT
from bench.runner import SOURCE, TARGET

LIMIT_ROUND_TRIPS, LIMIT_MS = 25, 10.0  # the bar: p99 within the one or the other, whichever is more
PINGS = 20  # between two flips
SETTLE_S = 0.05
PINNED = (b"SUBSCRIBE news", b"CLIENT TRACKING ON BCAST", b"BLPOP nothing 0", b"WATCH k")


class Talk:
    """One connection, one command at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = hiredis.Reader()

    def ask(self, *args: bytes) -> Any:
        self._sock.sendall(pack(args))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._sock.recv(65536))
        if isinstance(reply, hiredis.ReplyError):
            raise click.ClickException(str(reply))
        return reply


def _connected(stack: ExitStack, port: int) -> socket.socket:
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _admin(stack: ExitStack, peer: Peer) -> Talk:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.connect(str(peer.setting.directory / "state" / "admin.sock"))
    return Talk(sock)


def _pin(stack: ExitStack, port: int, each: int) -> None:
    """Sessions that need a connection of their own, or wait: what a flip has to take along."""
    for words in PINNED:
        for _ in range(each):
            sock = _connected(stack, port)
            if words.startswith(b"CLIENT"):
                Talk(sock).ask(b"HELLO", b"3")
            sock.sendall(pack(words.split()))


def _load(port: int, rate: int, seconds: float, told: Any) -> None:
    told.put(latency.run(port, "f", seconds, rate))


def measure(flips: int, rate: int, each: int) -> dict[str, Any]:
    """Pauses and round trips, in ms."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="crossfade-bench-")))
        peers, skipped = stack.enter_context(started(["crossfade"], (SOURCE, TARGET), directory))
        if not peers:
            raise click.ClickException(skipped["crossfade"])
        (peer,) = peers
        admin, client = _admin(stack, peer), Talk(_connected(stack, peer.port))
        _pin(stack, peer.port, each)
        told: Any = multiprocessing.Queue()
        seconds = 2 + flips * (SETTLE_S + 0.1)
        load = multiprocessing.Process(target=_load, args=(peer.port, rate, seconds, told), daemon=True)
        load.start()
        time.sleep(1)
        pauses, pings, refused = [], [], 0
        while len(pauses) < flips and load.is_alive():
            for _ in range(PINGS):
                began = time.perf_counter()
                client.ask(b"GET", b"no such key")
                pings.append((time.perf_counter() - began) * 1000)
            outcome = json.loads(admin.ask(b"FLIP", b"SKIP-VERIFY"))
            if outcome["flipped"]:
                pauses.append(outcome["pause_ms"])
            else:
                refused += 1
            time.sleep(SETTLE_S)
        late = told.get(timeout=seconds + 60)
        load.join()
        versions = machine.versions(peer.setting.source, peer.setting.target, peers)
    return {"pauses": pauses, "pings": pings, "refused": refused, "late": late, "versions": versions}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def report(found: dict[str, Any], command: str, each: int, rate: int) -> str:
    """The figures as Markdown."""
    pauses, pings = found["pauses"], found["pings"]
    trip = statistics.median(pings)
    bar = max(LIMIT_MS, LIMIT_ROUND_TRIPS * trip)
    rows = [("pause of a flip", pauses), ("round trip of a GET between flips", pings)]
    table = [
        f"| {name} | {percentile(values, 0.5):.2f} | {percentile(values, 0.99):.2f} | {max(values):.2f} |"
        for name, values in rows
    ]
    verdict = "kept" if percentile(pauses, 0.99) <= bar else "NOT kept"
    facts = [f"| {name} | {value} |" for name, value in [*machine.describe().items(), *found["versions"].items()]]
    return "\n".join(
        [
            "# How long a flip takes",
            "",
            f"Written by `{command}`: {len(pauses)} flips to and fro ({found['refused']} refused by the gate and tried "
            f"again), under {rate:,} commands/s (SET and GET in turns, {latency.CONNECTIONS} connections) and "
            f"{each * len(PINNED)} sessions that a flip has to take along (subscribed, tracking, blocked, watching).",
            "",
            "| ms | p50 | p99 | max |",
            "| --- | --- | --- | --- |",
            *table,
            "",
            f"The bar (p99 of the pause within {LIMIT_ROUND_TRIPS} round trips or {LIMIT_MS:g} ms, whichever is more: "
            f"{bar:.1f} ms) is **{verdict}**: {percentile(pauses, 0.99):.1f} ms, "
            f"{percentile(pauses, 0.99) / trip:.1f} round trips.",
            "",
            f"How late the load's replies were, all flips included: p50 {found['late'].p50:.2f} ms, "
            f"p99 {found['late'].p99:.2f} ms, p99.9 {found['late'].p999:.2f} ms.",
            "",
            "| | |",
            "| --- | --- |",
            *facts,
            "",
        ]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--flips", type=click.IntRange(2), default=200, show_default=True)
@click.option("--rate", type=click.IntRange(1), default=2000, show_default=True, help="Commands per second meanwhile.")
@click.option("--each", type=click.IntRange(0), default=10, show_default=True, help="Pinned sessions of each kind.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=ROOT / "docs" / "flip-pauses.md")
def main(flips: int, rate: int, each: int, out: Path) -> None:
    """The distribution of a flip's pause under load."""
    command = f"python -m bench.flips --flips {flips} --rate {rate} --each {each}"
    text = report(measure(flips, rate, each), command, each, rate)
    out.write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
