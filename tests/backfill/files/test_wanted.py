"""Patterns mean what they mean to KEYS."""

from __future__ import annotations

import pytest

from backfill.files.wanted import glob, wanted
from tests.servers import Server

PATTERNS = [
    b"*", b"a*", b"*c", b"a?c", b"[ab]*", b"[^a]*", b"[a-b]b*", b"[b-a]*", b"\\*", b"a\\", b"[", b"[]", b"[^]", b"[a",
    b"[\\]]", b"[a-", b"a[b-]c", b"", b"*\n*", b"\xff*", b"[\\", b"a.c", b"[.]", b"]", b"[^^]", b"h[^e]llo", b"*?*?",
]  # fmt: skip
KEYS = [
    b"a", b"b", b"abc", b"acb", b"aXc", b"*", b"\\", b"a\\", b"[", b"]", b"-", b"a-c", b"abbc", b"\n", b"a\nc",
    b"\xff\xfe", b"", b"^", b".", b"a.c", b"hello", b"hallo", b"[a", b"[]",
]  # fmt: skip


@pytest.mark.parametrize("name", ["redis-6.2", "valkey-9.1"])
def test_the_same_keys_as_the_server(name: str, server_pool: object) -> None:
    server: Server = server_pool.get(name)  # type: ignore[attr-defined]
    with server.client(single_connection_client=True) as client:
        client.mset(dict.fromkeys(KEYS, b""))  # type: ignore[arg-type]
        for pattern in PATTERNS:
            expression = glob(pattern)
            assert {key for key in KEYS if expression.match(key)} == set(client.keys(pattern)), pattern


def test_filters() -> None:
    chosen = wanted(["user:*", "x"], ["*:tmp"], ["hash"], [1])
    assert [chosen.key(key) for key in (b"user:1", b"x", b"user:tmp", b"y")] == [True, True, False, False]
    assert chosen.kind(b"hash") and not chosen.kind(b"set")
    assert chosen.db(1) and not chosen.db(0)
    assert wanted().key(b"") and wanted().kind(b"any") and wanted().db(7)
