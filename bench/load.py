"""Drives redis-benchmark, and a small client of its own for filling, probing and comparing."""

import csv
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import hiredis

from bench.cases import RANDOM, Case

BATCH = 200  # commands in flight while filling
CLIENT_LIMIT_S = 30.0
WARM_UP_COMMANDS = 4_000  # per unit of pipeline depth up to 8: about 0.1 s
BIG_WARM_UP_COMMANDS = 800
RUN_LIMIT_S = 30.0  # redis-benchmark waits for ever for a reply that does not come
COMPARED_KEYS = 200


class LoadError(Exception):
    """The load could not be driven, or was not served: text says how. The figure is then worth nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """What redis-benchmark saw: commands sent, per second, and latencies in ms (closed loop)."""

    commands: int
    rate: float
    p50_ms: float
    p99_ms: float


def run(case: Case, port: int, prefix: str, commands: int) -> Load:
    """One run of redis-benchmark. LoadError when it fails or stalls."""
    program = shutil.which("redis-benchmark")
    if program is None:
        raise LoadError("redis-benchmark is not installed (Debian package redis-tools)")
    options = {"-h": "127.0.0.1", "-p": port, "-c": case.clients, "-P": case.pipeline, "-r": case.keys, "-n": commands}
    arguments = [str(word) for option in options.items() for word in option]
    try:
        done = subprocess.run(
            [program, "--csv", *arguments, *case.command(prefix)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"no end within {RUN_LIMIT_S:.0f} s") from None
    return _parse(done, commands)


def _parse(done: "subprocess.CompletedProcess[str]", commands: int) -> Load:
    lines = done.stdout.splitlines()
    failed = [line for line in lines + done.stderr.splitlines() if line.startswith("Error from server")]
    header = next((i for i, line in enumerate(lines) if line.startswith('"test"')), None)
    if done.returncode or failed or header is None or header + 1 >= len(lines):
        said = failed or (done.stderr or done.stdout).splitlines()[-1:]
        raise LoadError(f"redis-benchmark: {' '.join(said)[:200] or 'no output'}")
    row = dict(zip(*csv.reader(lines[header : header + 2]), strict=True))
    return Load(commands, float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]))


def commands_for(case: Case, port: int, prefix: str, seconds: float) -> int:
    """A warm-up run; gives the number of commands that will take about so many seconds here."""
    least = case.clients * case.pipeline * 2
    guess = BIG_WARM_UP_COMMANDS if case.size > 16_384 else WARM_UP_COMMANDS * min(case.pipeline, 8)
    rate = run(case, port, prefix, max(guess, least)).rate
    return max(int(rate * seconds), least)


def pack(command: Sequence[bytes]) -> bytes:
    return hiredis.pack_command(tuple(command))  # type: ignore[arg-type]  # its stub says: of one element


class Client:
    """A blocking connection that pipelines; for what is not measured."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=CLIENT_LIMIT_S)
        self._reader = hiredis.Reader()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def call(self, *words: bytes | str) -> Any:
        return self.pipeline([[w.encode() if isinstance(w, str) else w for w in words]])[0]

    def pipeline(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        self._sock.sendall(b"".join(pack(command) for command in commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is not False:
                replies.append(reply)
            elif data := self._sock.recv(1 << 20):
                self._reader.feed(data)
            else:
                raise LoadError("the connection was closed")
        return replies

    def must(self, commands: Iterable[Sequence[bytes]]) -> None:
        """All of them, in batches; LoadError at the first error reply."""
        batch: list[Sequence[bytes]] = []
        for command in commands:
            batch.append(command)
            if len(batch) == BATCH:
                self._must_batch(batch)
                batch = []
        self._must_batch(batch)

    def _must_batch(self, batch: Sequence[Sequence[bytes]]) -> None:
        for reply in self.pipeline(batch):
            if isinstance(reply, hiredis.ReplyError):
                raise LoadError(f"refused: {reply}")


def prepare(case: Case, port: int, prefix: str) -> None:
    """Makes the data set anew, through the peer itself, so that a mirroring peer has it on both sides."""
    try:
        with Client(port) as client:
            client.must([b"DEL", key] for key in case.keys_of(prefix))
            client.must(case.fills(prefix))
    except OSError as error:
        raise LoadError(f"could not fill: {error}") from None


def probe(case: Case, port: int, prefix: str) -> None:
    """The case's command once: LoadError when the peer refuses it."""
    with Client(port) as client:
        client.must([[word.replace(RANDOM, "0" * 12).encode() for word in case.command(prefix)]])


@dataclass(frozen=True, slots=True)
class Served:
    """A server's own count of commands processed and of error replies."""

    commands: int
    errors: int

    @classmethod
    def by(cls, port: int) -> "Served":
        with Client(port) as client:
            lines = client.call("INFO", "stats").decode().splitlines()
        stats = dict(line.split(":", 1) for line in lines if ":" in line)
        return cls(int(stats["total_commands_processed"]), int(stats["total_error_replies"]))


@dataclass(frozen=True, slots=True)
class Equality:
    """Keys of one peer compared on both sides after its load: how many were equal, and after what time at the most."""

    checked: int
    equal: int
    seconds: float


def compare(case: Case, prefix: str, source: int, target: int, limit_s: float) -> Equality:
    """Compares a sample of keys until they are equal, or the time is up (a mirror may lag)."""
    keys = case.keys_of(prefix)
    keys = keys[:: max(1, len(keys) // COMPARED_KEYS)]
    reads = [[case.workload.read[0].encode(), key, *(w.encode() for w in case.workload.read[1:])] for key in keys]
    began = time.monotonic()
    with Client(source) as left, Client(target) as right:
        while True:
            pairs = zip(left.pipeline(reads), right.pipeline(reads), strict=True)
            equal = sum(_canonical(case, a) == _canonical(case, b) for a, b in pairs)
            waited = time.monotonic() - began
            if equal == len(keys) or waited > limit_s:
                return Equality(len(keys), equal, waited)
            time.sleep(0.1)


def _canonical(case: Case, value: Any) -> Any:
    """A hash comes in no order."""
    if case.workload.read[0] == "HGETALL":
        return dict(zip(value[::2], value[1::2], strict=True))
    return value
