"""The scrub finds what was changed behind the proxy's back, mends it, and never says that equal keys differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.outage_rig import Rig, rigs
from tests.proxies import until

MakeRig = Callable[..., Rig]
FAST = ("--scrub", "20000")
KEYS = 300


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    yield from rigs()


def passes(rig: Rig, count: int = 1) -> list[dict[str, Any]]:
    """So many passes that begin from now on; the one under way may have seen what was there before."""
    seen: list[dict[str, Any]] = []
    before = rig.proxy.status()["scrub"]["last"]

    def enough(now: dict[str, Any]) -> bool:
        last = now["scrub"]["last"]
        if last != (seen[-1] if seen else before):
            seen.append(last)
        return len(seen) > count

    rig.until(enough, f"{count} passes of the scrub")
    return seen[1:]


@pytest.mark.slow
def test_it_finds_nothing_where_nothing_is(make_rig: MakeRig) -> None:
    """Under hostile traffic: keys that expire, scripts, transactions, whole-db commands."""
    rig = make_rig(*("redis-6.2", "valkey-9.1"), *FAST)
    with rig.traffic() as traffic:
        traffic.wait_for(100)
        seen = passes(rig, 3)
        traffic.wait_for(100)
    traffic.assert_clean()
    assert all(one["checked"] for one in seen)
    assert not any(one["repaired"] or one["different"] for one in seen), seen
    assert "copied again" not in rig.proxy.log
    assert rig.proxy.status()["scrub"]["last_clean"]
    rig.assert_recovered()


def test_it_mends_what_was_changed_behind_the_proxys_back(make_rig: MakeRig) -> None:
    rig = make_rig(*("redis-6.2", "valkey-9.1"), *FAST)
    client = rig.proxy.client()
    for name in ("missing", "changed", "expiring", "other type"):
        client.set(name, "v")
    rig.proxy.wait_settled()
    rig.target.call("DEL", "missing")
    rig.target.call("SET", "changed", "w")
    rig.target.call("EXPIRE", "expiring", 1000)
    rig.target.call("DEL", "other type")
    rig.target.call("RPUSH", "other type", "v")
    rig.target.call("SET", "extra", 1)
    rig.until(lambda now: any("differ" in line for line in now["problems"]), "what it found")

    names = ("missing", "changed", "expiring", "other type", "extra")
    until(lambda: all(f"'{name}' differs" in rig.proxy.log for name in names), "all of them in the log")
    (seen,) = passes(rig)
    assert seen["repaired"] == seen["different"] == 0
    assert not rig.proxy.status()["problems"]
    rig.assert_recovered()


@pytest.mark.slow
def test_it_yields_to_a_backfill(make_rig: MakeRig) -> None:
    rig = make_rig(*("redis-6.2", "valkey-9.1"), *FAST)
    passes(rig)
    rig.proxy.admin("BACKFILL", "RATE", "150")
    rig.until(lambda now: now["scrub"]["state"] == "still", "a scrub that holds still")
    before = rig.proxy.status()["scrub"]
    rig.until(lambda now: now["backfill"]["copied"] > KEYS // 2, "half of the backfill")
    now = rig.proxy.status()["scrub"]
    assert now["last"] == before["last"] and now["state"] == "still"
    rig.refilled()
    passes(rig)


@pytest.mark.slow
def test_it_begins_anew_after_a_flip(make_rig: MakeRig) -> None:
    rig = make_rig(*("redis-6.2", "valkey-9.1"), *FAST)
    passes(rig)
    assert rig.proxy.admin("FLIP", "SKIP-VERIFY")["flipped"]
    rig.source.call("SET", "only there", 1)  # the mirror side now
    rig.until(lambda now: any("differ" in line for line in now["problems"]), "what it found")
    passes(rig)
    assert rig.source.call("EXISTS", "only there") == 0
    rig.assert_recovered()


@pytest.mark.slow
def test_it_can_be_switched_off(make_rig: MakeRig) -> None:
    rig = make_rig(*("redis-6.2", "valkey-9.1"), "--scrub", "0")
    assert rig.proxy.status()["scrub"]["state"] == "off"
