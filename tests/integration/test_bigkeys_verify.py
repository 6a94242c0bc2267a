"""Verify of big keys: page by page, exact under writes, and it names the first difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from proxy import verifying
from proxy.verifying import Report, Terms, Verifying
from proxy.verifying_pages import PagedVerify
from tests.inprocess import InProcess
from tests.integration.test_bigkeys import BIG, CALLS, backfill, fill, proxy_for_big_keys, small_pages, write
from tests.servers import Pool

__all__ = ["small_pages"]

COUNT = 6000
REST = ("set", "zset", "stream", "string")


async def verify(running: InProcess, terms: Terms = Terms()) -> Report:  # noqa: B008
    verifying = Verifying(running.proxy)
    await verifying.run(terms)
    assert (verifying.report.state, verifying.report.problem) == ("done", "")
    return verifying.report


DIFFERENCES = {
    "hash": [
        (["HSET", "big", "member:0000003", "x"], "value", "'member:0000003': '{}' on the source, 'x' on the target"),
        (["HDEL", "big", "member:0000004"], "value", "field 'member:0000004' only on the source"),
        (["HSET", "big", "new", "x"], "value", "field 'new' only on the target"),
        (["PEXPIRE", "big", "100000"], "ttl", "expires only on the target"),
        (["DEL", "big"], "missing", "a hash, not on the target"),
        (["SET", "big", "x"], "type", "hash on the source, string on the target"),
    ],
    "set": [
        (["SREM", "big", "member:0000005"], "value", "member 'member:0000005' only on the source"),
        (["SADD", "big", "new"], "value", "member 'new' only on the target"),
    ],
    "zset": [
        (["ZADD", "big", "1e9", "member:0000003"], "value", "{} on the source, 1000000000.0 on the target"),
        (["ZADD", "big", "1", "new"], "value", "member 'new' only on the target"),
    ],
    "list": [
        (["LSET", "big", "4321", "x"], "value", "index 4321: 'member:0004321' on the source, 'x' on the target"),
        (["RPUSH", "big", "x"], "value", "index 6000: nothing on the source, 'x' on the target"),
    ],
    "string": [
        (["SETRANGE", "big", "54321", "?"], "value", "byte 54321 differs"),
        (["APPEND", "big", "x"], "value", "84,000 bytes on the source, 84,001 on the target"),
    ],
    "stream": [
        (["XADD", "big", "9999999999999-1", "a", "b"], "value", "entry '9999999999999-1' only on the target"),
        (["XACK", "big", "g", "{id}"], "value", "group 'g': pending entry '{id}' only on the source"),
        (["XGROUP", "CREATE", "big", "more", "0"], "value", "group 'more' only on the target"),
        (["XTRIM", "big", "MAXLEN", "0"], "value", "only on the source"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENCES)
async def test_the_first_difference_is_named_and_repaired(server_pool: Pool, tmp_path: Path, kind: str) -> None:
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    fill(a.client(), kind, "big", COUNT)
    async with proxy_for_big_keys(a, b) as running:
        await backfill(running)
        await running.settled()
        assert (await verify(running)).equal == 1
        for command, status, detail in DIFFERENCES[kind]:
            if kind == "stream":
                pending = a.client().xpending_range("big", "g", "-", "+", 1)[0]["message_id"]
                pending = str(pending)[2:-1]
                command = [word.replace("{id}", pending) for word in command]
                detail = detail.replace("{id}", pending)
            if kind == "hash":
                detail = detail.format(str(a.client().hget("big", "member:0000003"))[2:-1])
            if kind == "zset":
                detail = detail.format(a.client().zscore("big", "member:0000003"))
            b.call(*command)
            findings = tmp_path / "findings.jsonl"
            report = await verify(running, Terms(findings=findings))
            (line,) = findings.read_text().splitlines()
            found = json.loads(line)
            assert (report.different, found["db"], found["key"], found["status"]) == (1, 0, "big", status), found
            assert found["detail"].endswith(detail), (found["detail"], detail)
            assert bytes.fromhex(found["key_hex"]) == b"big"
            repaired = await verify(running, Terms(repair=True))
            assert (repaired.different, repaired.repaired) == (0, 1)
            assert not await running.differences()


@pytest.mark.parametrize("kind", ["hash", "list", *(pytest.param(kind, marks=pytest.mark.slow) for kind in REST)])
async def test_nothing_is_found_while_clients_write(server_pool: Pool, kind: str) -> None:
    a, b = server_pool.get("redis-7.0"), server_pool.get("valkey-9.1")
    fill(a.client(), kind, "big", COUNT)
    async with proxy_for_big_keys(a, b) as running:
        await backfill(running)
        await running.settled()
        largest: list[int] = []
        call = running.hub.lane.call

        def measured(db, commands, callback, **options):  # type: ignore[no-untyped-def]
            def on_reply(frame: bytes | None) -> None:
                largest.append(len(frame or b""))
                callback(frame)

            call(db, commands, on_reply, **options)

        running.hub.lane.call = measured  # type: ignore[method-assign]
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            for seed in range(3):
                client = await running.client()
                nursery.start_soon(write, client, CALLS[kind], b"big", COUNT, seed, done.is_set)
            for _ in range(3):
                report = await verify(running)
                assert not report.different, report.findings
            done.set()
        assert max(largest) < (8 if kind == "stream" else 2) * BIG


@pytest.mark.parametrize("kind", CALLS)
async def test_a_key_that_became_another_type(server_pool: Pool, kind: str) -> None:
    """It is looked at anew. Whatever the reply is, the lane that brought it goes on."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    for other in CALLS:
        fill(a.client(), other, other, 30)
    async with proxy_for_big_keys(a, b) as running:
        await backfill(running)
        link = running.hub.lane.link
        for other in CALLS:
            paged = PagedVerify(running.proxy, (0, other.encode()), kind.encode(), 1000)
            assert (await paged.run(), paged.changed) == (None, other != kind)
        assert (await verify(running)).different == 0
        assert running.hub.lane.link is link


async def test_a_sample(server_pool: Pool) -> None:
    """About as many keys as asked for; it is no reason to flip."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    a.client().mset({f"key:{number}": number for number in range(3000)})
    async with proxy_for_big_keys(a, b) as running:
        await backfill(running)
        report = await verify(running, Terms(sample=300))
        assert 150 < report.checked == report.equal < 450
        assert running.proxy.verified_epoch == -1
        b.client().flushall()
        found = await verify(running, Terms(sample=300))
        assert 150 < found.missing < 450


async def test_a_key_that_is_dirty_all_the_time(server_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is told why: a transaction that never ends, scripts that write faster than the key can be copied."""
    monkeypatch.setattr(verifying, "PATIENCE_SECONDS", 0.1)
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    async with proxy_for_big_keys(a, b) as running:
        a.call("SET", "k", "1")
        running.hub.repair.hold((0, b"k"), "written by a transaction")
        report = await verify(running)
        (finding,) = report.findings
        assert (finding["status"], finding["detail"]) == (
            "missing",
            "a string, not on the target (dirty all the time: written by a transaction)",
        )
        running.hub.repair.keys.release((0, b"k"))
        running.hub.flush()
        await running.settled()
