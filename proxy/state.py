"""What must survive a restart: who serves, under which epoch, and whether the backfill is complete.

Owns the state directory: its lock (one proxy per directory), its small JSON file, replaced atomically and fsynced
before anything is served under it (invariant 11), and the admin socket's path. Holds no secrets.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy import faults
from proxy.roles import Name

FORMAT = 1
STATE_FILE = "state.json"
LOCK_FILE = "lock"
ADMIN_SOCKET = "admin.sock"
MAX_SOCKET_PATH = 100  # bytes; the kernel's limit for a unix socket is 108


class StateError(Exception):
    """The state directory cannot be used; `text` says why and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True)
class Durable:
    """The durable facts."""

    source: str  # URL without secrets: a directory belongs to one pair of servers
    target: str
    serving: Name = Name.SOURCE
    epoch: int = 0
    backfilled: bool = False  # a backfill was completed since everything was last unknown
    clean: bool = True  # stopped with nothing dirty and nothing in the mirror queue
    started: bool = False  # commands have been served
    mirrored: bool = False  # the target was written to: it is not expected to be empty any more
    filled: bool = False  # a backfill was completed once: a new one that is due begins by itself
    filling: bool = False  # a backfill was running
    frozen: str = ""  # why nothing is deleted on the mirror side (see recovery.py)
    finished: float = 0.0  # when mirroring was ended for good (time.time()); 0.0: it was not
    run_ids: dict[str, str] = field(default_factory=dict)  # by server, as last seen
    sizes: dict[str, int] = field(default_factory=dict)  # keys by server, as last seen
    instance: str = ""  # in the names of our upstream connections, to find those of a proxy that was killed

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self), "serving": self.serving.value}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Durable:
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError("another format")
        expected = json.loads(cls("", "").to_json())
        if any(type(value) is not type(expected.get(name)) for name, value in fields.items()):
            raise ValueError("a field of another type")
        return cls(**{**fields, "serving": Name(fields["serving"])})


class StateDir:
    """An open, locked state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1
        self._unsaved = False
        self.durable = Durable("", "")

    def __repr__(self) -> str:
        return f"<StateDir {self.path} {self.durable}>"

    @property
    def admin_socket(self) -> Path:
        return self.path / ADMIN_SOCKET

    def open(self, source: str, target: str) -> None:
        """Lock the directory and load it, or begin anew. Errors: StateError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            raise StateError(f"cannot use the state directory {self.path}: {problem.strerror}") from None
        if len(os.fsencode(self.admin_socket)) > MAX_SOCKET_PATH:
            raise StateError(f"the path {self.admin_socket} is too long for a socket: choose a shorter --state-dir")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateError(
                f"another proxy is running on the state directory {self.path}: stop it, or choose another --state-dir"
            ) from None
        self._load(source, target)

    def _load(self, source: str, target: str) -> None:
        try:
            text = (self.path / STATE_FILE).read_text(errors="replace")
        except FileNotFoundError:
            self.durable = Durable(source, target, instance=secrets.token_hex(6))
            return
        try:
            found = Durable.from_json(text)
        except (ValueError, KeyError, TypeError):  # UnicodeDecodeError is a ValueError
            raise StateError(
                f"{self.path / STATE_FILE} cannot be read (damaged, or written by another version): "
                "restore it, or start with an empty --state-dir and a new backfill"
            ) from None
        if (found.source, found.target) != (source, target):
            raise StateError(
                f"the state directory {self.path} belongs to {found.source} -> {found.target}, "
                f"not to {source} -> {target}: choose another --state-dir"
            )
        self.durable = found

    def remember(self, **changes: object) -> None:
        """Change some of the facts now; `flush` makes them durable soon."""
        changed = replace(self.durable, **changes)  # type: ignore[arg-type]
        if changed != self.durable:
            self.durable = changed
            self._unsaved = True

    def flush(self) -> None:
        """Make what was remembered durable. Errors: OSError."""
        if self._unsaved:
            self.save()

    def save(self, **changes: object) -> None:
        """Change some of the facts, durably: they are what they were if this fails. Errors: OSError."""
        changed = replace(self.durable, **changes)  # type: ignore[arg-type]
        what = next(iter(changes), "")
        temporary = self.path / (STATE_FILE + ".new")
        with open(temporary, "w") as file:
            faults.reached(f"{what} opened")
            file.write(changed.to_json())
            file.flush()
            faults.reached(f"{what} written")
            os.fsync(file.fileno())
        faults.reached(f"{what} synced")
        os.replace(temporary, self.path / STATE_FILE)
        faults.reached(f"{what} renamed")
        self.durable, self._unsaved = changed, False  # the next start reads this, whatever comes now
        directory = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        faults.reached(f"{what} durable")

    def close(self) -> None:
        """Let another proxy have the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
