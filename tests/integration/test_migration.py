"""The whole migration, as an operator does it, in the middle of a load that tries to break it.

What is promised: no client sees an error, and at rest both servers are equal, by our own verify and by another's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.equality import assert_equal_servers
from tests.proxies import RunningProxy
from tests.servers import Pool
from tests.traffic import Traffic, preload

PAIRS = [("redis-6.2", "valkey-9.1"), ("redis-6.2", "redis-8.2"), ("redis-7.0", "redis-6.2")]
COUNTS = ("missing", "extra", "type", "ttl", "value", "unreadable")


PATIENCE = 300  # s: for one command of the operator, with many keys on a slow machine


def size(source: str, target: str, keys: int, *marks: pytest.MarkDecorator) -> Any:
    return pytest.param(source, target, keys, marks=[pytest.mark.timeout(3 * PATIENCE), *marks])


SIZES = [
    *(size(*pair, 8000) for pair in PAIRS),
    *(size(*pair, 200_000, pytest.mark.slow) for pair in PAIRS),
]


@pytest.mark.parametrize(("source", "target", "keys"), SIZES)
def test_the_whole_migration(
    server_pool: Pool, start_proxy: Callable[..., RunningProxy], source: str, target: str, keys: int
) -> None:
    a, b = server_pool.get(source), server_pool.get(target)
    preload(a, keys, seed=3)
    proxy = start_proxy(a, b)
    proxy.patience = PATIENCE
    assert proxy.status()["phase"] == "filling"
    with Traffic(proxy, clients=16, rate=1000.0, seed=3, also_known_to=b) as traffic:
        traffic.wait_for(300)
        filled = proxy.backfill()
        assert (filled["state"], filled["failed"], filled["problem"]) == ("done", 0, "")
        assert filled["scanned"] > keys * 0.9 and filled["copied"] > keys * 0.9
        traffic.wait_for(300)
        proxy.verify()
        there = proxy.flip()
        traffic.wait_for(300)
        proxy.verify()
        back = proxy.flip()
        traffic.wait_for(300)
    assert [(there[name], back[name]) for name in ("flipped", "serving", "epoch")] == [
        (True, True),
        ("target", "source"),
        (1, 2),
    ]
    status = proxy.wait_settled()
    assert (status["phase"], status["unmirrored"], status["backfill"]["failed"]) == ("in-sync", 0, 0)
    flips = [(flip["serving"], flip["epoch"], flip["pause_ms"]) for flip in status["flips"]]
    assert flips == [(flip["serving"], flip["epoch"], flip["pause_ms"]) for flip in (there, back)]
    assert all(pause > 0 for *_, pause in flips)
    report = proxy.verify()
    assert [report[name] for name in COUNTS] == [0] * len(COUNTS)
    assert report["checked"] == report["equal"] > keys * 0.8
    assert_equal_servers(a, b)
    traffic.assert_clean()
    assert not status["problems"]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_target_that_serves_at_the_end(
    server_pool: Pool, start_proxy: Callable[..., RunningProxy], source: str, target: str
) -> None:
    """The usual end: the target serves, the old source is kept equal, the proxy is stopped, and all is there."""
    a, b = server_pool.get(source), server_pool.get(target)
    preload(a, 2000, seed=5)
    proxy = start_proxy(a, b)
    with Traffic(proxy, clients=16, rate=1500.0, seed=5, also_known_to=b) as traffic:
        proxy.backfill()
        proxy.verify()
        proxy.flip()
        traffic.wait_for(1000)
    traffic.assert_clean()
    proxy.wait_settled()
    proxy.verify()
    proxy.cli("stop").done()
    assert proxy.wait() == 0
    assert_equal_servers(a, b)
    b.call("SET", "after", "1")


def test_verify_sees_what_is_different(server_pool: Pool, start_proxy: Callable[..., RunningProxy]) -> None:
    """The other tests' verify would be worth nothing if it found nothing here."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(a, 500, seed=1, short_ttls=False)
    proxy = start_proxy(a, b)
    proxy.backfill()
    keys = sorted(key for key in a.client().scan_iter(count=1000) if key.isascii())[:3]
    b.call("DEL", keys[0])
    b.call("RENAME", keys[1], "extra")
    b.call("PEXPIRE", keys[2], 86_400_000)
    found = proxy.cli("verify", "--json")
    assert found.code == 1
    assert {name: found.json[name] for name in COUNTS} == {
        "missing": 2, "extra": 1, "type": 0, "ttl": 1, "value": 0, "unreadable": 0
    }  # fmt: skip
    named = {(finding["status"], finding["key"]) for finding in found.json["findings"]}
    assert {status for status, _ in named} == {"missing", "extra", "ttl"}
    assert proxy.cli("flip").code == 4
    repaired = proxy.cli("verify", "--json", "--repair")
    assert repaired.code == 0 and repaired.json["repaired"] == 4
    assert_equal_servers(a, b)
    proxy.verify()
    proxy.flip()
