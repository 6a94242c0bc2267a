"""The proxy as its users run it: the process `python -m crossfade proxy`, and the commands of the CLI against it.

Owns: processes, their log, their state directory, and that none of them is left behind. Knows nothing of the inside.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import hiredis
import redis

from tests.servers import CLIENT_OPTIONS
from tests.traffic.connection import pack

ROOT = Path(__file__).parent.parent
CROSSFADE = (sys.executable, "-m", "crossfade")
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0  # it lets everything settle, for 5 s at most
CLI_TIMEOUT_S = 50.0
WAIT_S = 20.0  # for a condition that comes in milliseconds on a machine with nothing else to do
POLL_S = 0.01

_READY = re.compile(r"^crossfade: listening on (.*):(\d+), ", re.MULTILINE)


class HasUrl(Protocol):
    @property
    def url(self) -> str: ...


Address = HasUrl | str


@dataclass(frozen=True, slots=True)
class Result:
    """What a command of the CLI left behind."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed on stdout. The whole of it must be one JSON document."""
        try:
            return json.loads(self.out)
        except ValueError:
            raise AssertionError(f"no JSON on stdout: {self}") from None

    def done(self) -> Self:
        """Itself, after looking that it went well."""
        assert self.code == 0, str(self)
        return self

    def __str__(self) -> str:
        return f"crossfade {' '.join(self.args)} ended with {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class DidNotStart(Exception):
    """The proxy ended, or was not ready in time; the message is its log."""


class AdminError(Exception):
    """The admin socket answered with an error."""


def url_of(server: Address) -> str:
    return server if isinstance(server, str) else server.url


def until(condition: Callable[[], Any], what: str = "", timeout: float = WAIT_S) -> Any:
    """The first true value of the condition; AssertionError that names it if it never comes."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not come within {timeout:g} s: {what or condition}"
        time.sleep(POLL_S)
    return value


def run_crossfade(
    *args: str, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = CLI_TIMEOUT_S
) -> Result:
    """One command of the CLI, to its end. A proxy that starts although it should not is ended by the time limit."""
    end = subprocess.run(
        [*CROSSFADE, *args],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Result(args, end.returncode, end.stdout, end.stderr)


class RunningProxy:
    """One proxy process between two servers. The state directory stays over stop() and kill(), for start().

    The port is chosen by the proxy at the first start and kept from then on; give one to a test whose clients go on
    connecting while the proxy is down. `options`: more options of `crossfade proxy`.
    """

    def __init__(
        self,
        source: Address,
        target: Address,
        *options: str,
        host: str = "127.0.0.1",
        port: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.source, self.target = url_of(source), url_of(target)
        self.options = list(options)
        self.host, self.port = host, port
        self.patience = CLI_TIMEOUT_S  # s: how long one command of its operator may take
        self._env = dict(env or {})
        # A short path: a unix socket's name has 108 bytes at most.
        self._directory = Path(tempfile.mkdtemp(prefix="crossfade-"))
        self.state_dir = self._directory / "state"
        self._processes: list[subprocess.Popen[bytes]] = []  # at most one; shared with the finalizer
        self._finalizer = weakref.finalize(self, _clean_up, self._processes, self._directory)

    def __repr__(self) -> str:
        return f"<RunningProxy {self.url} pid {self.pid}>"

    @property
    def running(self) -> bool:
        return bool(self._processes) and self._processes[0].poll() is None

    @property
    def pid(self) -> int | None:
        return self._processes[0].pid if self._processes else None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    @property
    def admin_socket(self) -> Path:
        return self.state_dir / "admin.sock"

    @property
    def log(self) -> str:
        """Everything it has written to stderr, over all its starts."""
        path = self._directory / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- the process ---------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Returns when it takes clients. Errors: DidNotStart."""
        if not self.running:
            before = len(self.log)
            self._spawn()
            self._wait_ready(before)
        return self

    def _spawn(self) -> None:
        arguments = ["--listen", f"{self.host}:{self.port}", "--state-dir", os.fspath(self.state_dir), *self.options]
        # The URLs by the environment: that they may hold passwords is the normal case.
        urls = {"CROSSFADE_SOURCE": self.source, "CROSSFADE_TARGET": self.target}
        with (self._directory / "stderr").open("ab") as log:
            process = subprocess.Popen(
                [*CROSSFADE, "proxy", *arguments],
                cwd=ROOT,
                env={**os.environ, **urls, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for pytest
            )
        self._processes[:] = [process]

    def _wait_ready(self, before: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (ready := _READY.search(self.log, before)) is None or not self.admin_socket.exists():
            ended = not self.running
            if ended or time.monotonic() > deadline:
                self.kill()
                raise DidNotStart(self.log)
            time.sleep(POLL_S)
        self.port = int(ready[2])

    def stop(self) -> int:
        """SIGTERM; the exit code. Nothing if it does not run."""
        if not self.running:
            return 0
        self._processes[0].terminate()
        return self.wait()

    def wait(self) -> int:
        """For the end that it was told by other means; the exit code."""
        return self._processes[0].wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL."""
        if self._processes:
            self._processes[0].kill()
            self._processes[0].wait()

    def pause(self) -> None:
        self._processes[0].send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._processes[0].send_signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Stopped in order, and started again on the same port and state directory."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """The end of process and directory; before it, what no test may leave unseen."""
        self.stop()
        log = self.log
        self._finalizer()
        assert "Traceback" not in log, log

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"the proxy's log:\n{self.log[-5000:]}")
        self.close()

    # -- its operator --------------------------------------------------------------------------------------------

    def cli(self, *args: str) -> Result:
        """`crossfade ARGS --state-dir ...`, to its end."""
        return run_crossfade(*args, "--state-dir", os.fspath(self.state_dir), timeout=self.patience)

    def admin(self, *args: str | bytes) -> Any:
        """One command on the admin socket: without the price of a new process, for what is asked again and again."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(self.patience)
            connection.connect(os.fspath(self.admin_socket))
            connection.sendall(pack([args]))
            reader = hiredis.Reader(replyError=AdminError)
            while (reply := reader.gets()) is False:
                received = connection.recv(1 << 16)
                if not received:
                    raise ConnectionResetError("the proxy closed its admin socket")
                reader.feed(received)
        if isinstance(reply, AdminError):
            raise reply
        return json.loads(reply) if reply[:1] in b"{[" else reply

    def status(self) -> dict[str, Any]:
        return dict(self.admin("STATUS"))

    def backfill(self) -> Any:
        """Through the CLI; its JSON. It must be complete."""
        return self.cli("backfill", "--json").done().json

    def verify(self) -> Any:
        """Through the CLI; its JSON. Nothing may differ."""
        return self.cli("verify", "--json").done().json

    def flip(self, *options: str) -> Any:
        """Through the CLI; its JSON. It must have flipped."""
        return self.cli("flip", "--json", *options).done().json

    def wait_settled(self, timeout: float = WAIT_S) -> dict[str, Any]:
        """The status once the mirror side has acknowledged everything and no key is dirty."""

        def settled() -> dict[str, Any] | None:
            now = self.status()
            mirror = now["mirror"]
            return now if mirror["connected"] and not mirror["queued"] and not now["dirty"] else None

        return dict(until(settled, "a settled proxy", timeout))

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        """A synchronous redis-py client of the proxy, made as tests.servers.Server makes its clients."""
        address: dict[str, Any] = {"host": self.host, "port": self.port}
        return redis.Redis(**(address | CLIENT_OPTIONS | {"db": db} | options))


def _clean_up(processes: Sequence[subprocess.Popen[bytes]], directory: Path) -> None:
    """Runs at close(), when the object is forgotten, and when the interpreter exits."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
    shutil.rmtree(directory, ignore_errors=True)
