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
