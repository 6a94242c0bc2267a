"""Owns the package's errors. Each has `text`: one line for a person, without secrets."""

from __future__ import annotations

from typing import Literal

ConnectKind = Literal["refused", "timeout", "tls", "auth", "protocol", "dns"]


class BackfillError(Exception):
    """The root of the family."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class ConnectError(BackfillError):
    """No usable connection. `kind`: refused (nobody listens, or no way there), timeout, tls, auth (also: a password is
    missing), protocol (not a Redis, or it refused what we need), dns."""

    def __init__(self, kind: ConnectKind, text: str) -> None:
        super().__init__(text)
        self.kind: ConnectKind = kind


class ConnectionLost(BackfillError):
    """The connection ended, or was given up, with replies outstanding: their commands may or may not have run."""


class ScanError(BackfillError):
    """The server refused SCAN, SELECT or INFO with this text."""


class ServerRefuses(BackfillError):
    """A server answered with an error where none belongs. `reply`: its own words."""

    def __init__(self, text: str, reply: str) -> None:
        super().__init__(text)
        self.reply = reply

    @property
    def passing(self) -> bool:
        """The same command may succeed later."""
        return is_passing(self.reply)


# What a server says that is busy with itself, or full: the same command may succeed later.
PASSING = (
    "OOM",
    "LOADING",
    "READONLY",
    "MISCONF",
    "BUSY ",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "EXECABORT Transaction discarded because of: OOM",
)


def is_passing(text: str) -> bool:
    """Whether an error reply says that the server may take the command later."""
    return text.startswith(PASSING)
