"""What the proxy and its ferry say to each other: a JSON document a line (see `proxy/front/channel.py`). Pure.

proxy -> ferry: `journey` (the servers, what to copy, from where), `go` (a crossing may begin; `shift` in ms is added to
deadlines), `closed` (it is judged: its file may go).

ferry -> proxy: `connected` (to these processes, to the mirror side with this id), `open` (the keys of a crossing, those
of its page that are left to the lane, and where the scan goes on behind it), `close` (all is acknowledged but the keys
that are left), `done`, `lost` (a server), `failed`.
"""

from __future__ import annotations

from collections.abc import Iterable

from backfill.direct.selection import Selection


def text_of(keys: Iterable[bytes]) -> list[str]:
    """Keys for JSON: one character a byte."""
    return [key.decode("latin-1") for key in keys]


def keys_of(texts: Iterable[str]) -> list[bytes]:
    """The keys again."""
    return [text.encode("latin-1") for text in texts]


def selection_of(described: dict[str, list]) -> Selection:  # type: ignore[type-arg]
    """From `Selection.describe`."""
    return Selection(
        match=tuple(map(bytes.fromhex, described["match"])),
        exclude=tuple(map(bytes.fromhex, described["exclude"])),
        types=frozenset(kind.encode() for kind in described["types"]),
        dbs=frozenset(described["dbs"]),
        slots=tuple((first, last) for first, last in described["slots"]),
    )
