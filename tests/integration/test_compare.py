"""`crossfade compare` on real servers: it finds what a comparison independent of its code finds, and mends it."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from backfill.direct import comparing, copier, pages
from backfill.direct.comparing import ComparePlan, Comparison
from backfill.direct.selection import Selection
from backfill.url import parse_url
from tests.equality import assert_equal_servers, compare_servers
from tests.integration.direct_rig import compare, fill_with_special_keys, replicate, run_here
from tests.servers import NAMES, Pool, Server
from tests.traffic import preload

QUICK = [("redis-6.2", "valkey-9.1"), ("redis-8.2", "redis-7.0")]
PAIRS = [
    pytest.param(*pair, id="-to-".join(pair), marks=[] if pair in QUICK else [pytest.mark.slow])
    for pair in product(NAMES, NAMES)
    if pair[0] != pair[1]
]

# What is done to a key of each type on one side, so that it differs.
CHANGES: dict[bytes, list[tuple[Any, ...]]] = {
    b"string": [("APPEND", "x"), ("SETRANGE", 0, "~")],
    b"list": [("RPUSH", "x"), ("LSET", 0, "~")],
    b"set": [("SADD", "~")],
    b"zset": [("ZADD", 7.5, "~"), ("ZADD", "XX", "CH", "INCR", 1, None)],
    b"hash": [("HSET", "~", 1)],
    b"stream": [("XADD", "*", "f", "v"), ("XGROUP", "CREATE", "~", "0"), ("XTRIM", "MAXLEN", 0)],
}


def spoil(server: Server, keys: list[bytes], rng: Random) -> None:
    """Make each of these keys different from what it is, in one of many ways."""
    for key in keys:
        kind = server.call("TYPE", key)
        if kind == b"none" or rng.random() < 0.15:
            server.call("DEL", key)
            if rng.random() < 0.3:
                server.call(*(("SET", key, 1) if kind != b"string" else ("SADD", key, 1)))
        elif rng.random() < 0.15:
            server.call("PEXPIRE", key, rng.randrange(10**6, 10**8))
        else:
            name, *rest = rng.choice(CHANGES[kind])
            if rest[-1] is None:
                rest[-1] = server.call("ZRANGE", key, 0, 0)[0]
            if name == "XGROUP":
                server.call(name, rest[0], key, *rest[1:])
            else:
                server.call(name, key, *rest)


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("paged", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["whole", "paged"])
def test_finds_what_differs(
    server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, paged: bool
) -> None:
    source, target = server_pool.get(one), server_pool.get(other)
    preload(source, 500, short_ttls=False)
    fill_with_special_keys(source)
    replicate(source, target, tmp_path)
    rng = Random(5)
    keys = sorted(source.call("KEYS", "*"))
    spoil(target, rng.sample(keys, 60), rng)
    for number in range(4):
        target.call("SET", f"extra {number}", 1, db=number)
    if paged:  # every key is big now
        for module in (copier, comparing):
            monkeypatch.setattr(module, "PAGED_BYTES", 1)
        for name in ("PAGE_BYTES", "PIECE_BYTES"):
            monkeypatch.setattr(pages, name, 100)
    expected = {(each.db, each.key): each.what.value for each in compare_servers(source, target, stream_counters=False)}
    assert len(expected) > 40
    report = compare(source, target, rounds=1)
    found = {(each.db, each.key): each.status for each in report.findings}
    assert found.keys() == expected.keys()
    exact = {place for place in found if expected[place] in ("missing", "extra", "type")}
    assert {place: found[place] for place in exact} == {place: expected[place] for place in exact}
    assert report.checked == report.equal + report.different
    report = compare(source, target, rounds=1, fix=True)
    assert report.fixed == report.different == len(expected)
    assert_equal_servers(source, target, stream_counters=False)
    assert compare(source, target).different == 0


DETAILS = [
    (("SET", "k", "abc"), ("SET", "k", "abd"), "value", "byte 2 differs"),
    (("RPUSH", "k", "a", "b"), ("RPUSH", "k", "a", "c"), "value", "index 1: 'b' on the source, 'c' on the target"),
    (("SADD", "k", "a", "b"), ("SADD", "k", "b"), "value", "member 'a' only on the source"),
    (("ZADD", "k", 1, "a"), ("ZADD", "k", 2, "a"), "value", "member 'a': 1.0 on the source, 2.0 on the target"),
    (("HSET", "k", "f", 1), ("HSET", "k", "f", 2), "value", "field 'f': '1' on the source, '2' on the target"),
    (("XADD", "k", "1-1", "f", "v"), ("XADD", "k", "1-2", "f", "v"), "value", "entry '1-1' only on the source"),
    (("SET", "k", 1), ("RPUSH", "k", 1), "type", "string on the source, list on the target"),
    (("SET", "k", 1), ("SET", "k", 1, "PX", 10**8), "ttl", "expires only on the target"),
]


@pytest.mark.parametrize(("here", "there", "status", "detail"), DETAILS, ids=[row[3] for row in DETAILS])
@pytest.mark.parametrize("paged", [False, True], ids=["whole", "paged"])
def test_names_the_first_difference(
    server_pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    here: tuple[Any, ...],
    there: tuple[Any, ...],
    status: str,
    detail: str,
    paged: bool,
) -> None:
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    source.call(*here)
    target.call(*there)
    if paged:
        monkeypatch.setattr(comparing, "PAGED_BYTES", 1)
    (finding,) = compare(source, target, rounds=1).findings
    assert (finding.status, finding.detail) == (status, detail)


def test_tolerance(server_pool: Pool) -> None:
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    source.call("SET", "k", 1, "PX", 10**8)
    target.call("SET", "k", 1, "PX", 10**8 + 5000)
    assert compare(source, target, rounds=1).ttl == 1
    assert compare(source, target, rounds=1, tolerance_ms=8000).different == 0


def test_a_cached_count_is_no_difference(server_pool: Pool, tmp_path: Path) -> None:
    """PFCOUNT, a read, writes it into the value."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("redis-7.0")
    source.call("PFADD", "hll", *range(100))
    replicate(source, target, tmp_path)
    source.call("PFCOUNT", "hll")
    assert source.call("GET", "hll") != target.call("GET", "hll")
    assert compare(source, target, rounds=1).different == 0


def test_a_key_that_changes_is_looked_at_again(server_pool: Pool) -> None:
    """What differs at the first look and not at a later one is equal."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    for number in range(10):
        source.call("SET", f"k{number}", 1)
    plan = ComparePlan(parse_url(source.url), parse_url(target.url), Selection(), rounds=1000, pause=0.01)
    comparison = Comparison(plan)

    async def main() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(comparison.run)
                for number in range(10):
                    await trio.sleep(0.02)
                    await trio.to_thread.run_sync(target.call, "SET", f"k{number}", 1)

    trio.run(main)
    assert (comparison.report.equal, comparison.report.different) == (10, 0)


def test_many_suspects(server_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MAX_SUSPECTS", 50)
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(source, 3000, short_ttls=False)
    report = compare(source, target, rounds=1, fix=True)
    assert report.missing == report.fixed == report.checked == 3000
    assert_equal_servers(source, target, stream_counters=False)


def test_samples(server_pool: Pool, tmp_path: Path) -> None:
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(source, 3000, short_ttls=False)
    preload(target, 1000, prefix=b"other:")
    report = compare(source, target, rounds=1, sample=0.1, seed=4)
    assert 200 < report.missing < 400 and 50 < report.extra < 150
    report = compare(source, target, rounds=1, sample_keys=300, seed=5)
    assert 200 < report.missing < 400


def test_the_command(server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    source.call("SET", "same", 1)
    target.call("SET", "same", 1)
    source.call("SET", b"\xff", 1)
    target.call("SET", "extra", 1)
    file = tmp_path / "findings.jsonl"
    state = ("--state-dir", str(tmp_path / "state"))
    args = ("compare", source.url, target.url, "--rounds", "1", *state)
    result = run_here(monkeypatch, *args, "--json", "--findings", str(file))
    document = result.json
    assert result.code == 1
    counts = {name: document[name] for name in ("checked", "equal", "missing", "extra", "type", "ttl", "value")}
    assert counts == {"checked": 3, "equal": 1, "missing": 1, "extra": 1, "type": 0, "ttl": 0, "value": 0}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == document["findings"]
    assert {(line["status"], line["key"], line["key_hex"]) for line in lines} == {
        ("missing", "\\xff", "ff"),
        ("extra", "extra", b"extra".hex()),
    }
    assert run_here(monkeypatch, *args, "--json", "--match", "\udcff*").json["findings"] == [lines[0]]
    text = run_here(monkeypatch, *args).out
    assert "db 0 missing '\\xff': a string, not on the target" in text
    assert run_here(monkeypatch, *args, "--fix").code == 0
    assert run_here(monkeypatch, *args).code == 0
    assert_equal_servers(source, target)
    for code, words in ((2, ("--sample", "0")), (2, ("--findings", str(tmp_path / "no" / "file")))):
        assert run_here(monkeypatch, *args, *words).code == code
    assert run_here(monkeypatch, "compare", source.url, "redis://127.0.0.1:1", *state).code == 3
    assert not (tmp_path / "state").exists()
