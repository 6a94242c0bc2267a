"""Proxy processes of a run: started in the run's directory, awaited at their port, stopped by their own pid."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_LIMIT_S = 20.0
STOP_LIMIT_S = 5.0
POLL_S = 0.02
ROOT = Path(__file__).resolve().parent.parent  # processes run here, so that `python -m crossfade` is found


class StartError(Exception):
    """A process did not open its port; the text holds the end of what it said."""


@dataclass(frozen=True, slots=True)
class Running:
    port: int
    pid: int
    version: str


@contextmanager
def process(name: str, command: Sequence[str], port: int, directory: Path, version: str) -> Iterator[Running]:
    """Runs the command until the end of the block. Its output goes to a file of the directory."""
    log = directory / f"{name}.log"
    with log.open("wb") as out:
        # A process group of its own: Ctrl-C is for the benchmark, which then stops its processes in order.
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0)
    try:
        _wait_for_port(name, child, port, log)
        yield Running(port, child.pid, version)
    finally:
        child.terminate()
        try:
            child.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_for_port(name: str, child: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    give_up = time.monotonic() + START_LIMIT_S
    while time.monotonic() < give_up and child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(POLL_S)
        else:
            return
    said = " | ".join(log.read_text(errors="replace").splitlines()[-3:])
    raise StartError(f"{name} did not open its port: {said[-400:] or 'no output'}")


def output_of(command: Sequence[str]) -> str:
    """What a program prints about itself; empty when it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).strip()
