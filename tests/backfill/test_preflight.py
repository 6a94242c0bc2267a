"""What cannot be made on a server of our own: a service's reserve, clocks that differ, dbs that are one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backfill.preflight.judge import _numbers, judge
from backfill.preflight.model import Check, Look, Sample, Verdict
from backfill.preflight.needs import MULTI_KEY, NEEDS
from backfill.url import parse_url

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM
MB = 10**6
# The lines that matter of an Azure Cache for Redis' INFO.
AZURE = {
    "redis_version": "6.0.14",
    "used_memory": str(100 * MB),
    "maxmemory": str(1000 * MB),
    "maxmemory_policy": "volatile-lru",
    "maxmemory_reservation": str(300 * MB),
    "maxfragmentationmemory_reservation": str(300 * MB),
    "db0": "keys=5,expires=0,avg_ttl=0",
    "db3": "keys=1000,expires=0,avg_ttl=0,subexpiry=0",
}
HERE = Look(
    "source",
    parse_url("rediss://:secret@old:6380"),
    {"redis_version": "6.2.14", "used_memory": "1000", "maxmemory_policy": "volatile-lru"},
    commands=frozenset([b"GET"]),
    used={b"GET": 5},
    dbs=frozenset(range(16)),
    pings_ms=(0.2, 0.3, 0.4),
    tls="TLSv1.3 AES",
    certificate_days=300.0,
)
THERE = replace(HERE, role="target", url=parse_url("rediss://:secret@new:10000"))


def found(name: str, source: Look = HERE, target: Look = THERE, sample: Sample | None = None) -> list[Check]:
    return [check for check in judge(source, target, sample or Sample()) if check.name == name]


def with_info(look: Look, **info: str) -> Look:
    return replace(look, info={**look.info, **info})


@pytest.mark.parametrize(("used", "verdict"), [(200, OK), (280, WARNING), (500, PROBLEM)])
def test_a_reserve_is_not_for_data(used: int, verdict: Verdict) -> None:
    """1000 MB, 600 of them reserved, 100 used: 300 are free."""
    target = with_info(THERE, **{name: AZURE[name] for name in AZURE if "m" in name and not name.startswith("db")})
    (check,) = found("memory", with_info(HERE, used_memory=str(used * MB)), target)
    assert check.verdict is verdict and "286.1 MB free of 953.7 MB, 572.2 MB of them reserved" in check.fact


def test_a_reserve_that_only_config_tells() -> None:
    target = replace(with_info(THERE, maxmemory=str(100 * 2**20)), config={"maxmemory-reserved": "60"})
    (check,) = found("memory", with_info(HERE, used_memory=str(50 * 2**20)), target)
    assert check.verdict is PROBLEM and "60.0 MB of them reserved" in check.fact


def test_what_is_not_told_is_no_good_news() -> None:
    nothing = replace(HERE, info={}, used={}, commands=frozenset())
    verdicts = {
        check.name: check.verdict
        for check in judge(nothing, replace(nothing, role="target"), Sample())
        if check.verdict is not OK
    }
    assert verdicts == dict.fromkeys(
        ("source version", "target version", "memory", "eviction", "commands in use"), WARNING
    )


def test_sizes() -> None:
    assert with_info(HERE, **AZURE).sizes == {0: 5, 3: 1000}


def test_dbs_that_are_one() -> None:
    one = replace(THERE, merged_dbs=frozenset(range(1, 16)))
    (check,) = found("dbs", with_info(HERE, db0="keys=1", db2="keys=1"), one)
    assert check.verdict is PROBLEM and "takes SELECT 1-15 and stays in db 0" in check.fact
    (check,) = found("dbs", with_info(HERE, db0="keys=1"), one)
    assert check.verdict is WARNING, "nobody uses another db yet"


def test_shards_behind_one_endpoint() -> None:
    target = replace(THERE, refused={MULTI_KEY.name: "CROSSSLOT Keys in request don't hash to the same slot"})
    (check,) = found("target cluster mode", target=target)
    assert check.verdict is PROBLEM and "CROSSSLOT" in check.fact


@pytest.mark.parametrize(
    ("offset", "uncertainty", "verdict"),
    [(0.0, 1.0, OK), (5000.0, 1.0, WARNING), (900.0, 1.0, OK), (0.0, 80.0, WARNING)],
)
def test_clocks(offset: float, uncertainty: float, verdict: Verdict) -> None:
    (check,) = found("clocks", target=replace(THERE, offset_ms=-offset, uncertainty_ms=uncertainty))
    assert check.verdict is verdict
    assert ("behind" in check.fact) == (offset >= 0)


def test_clocks_that_are_not_told() -> None:
    (check,) = found("clocks", target=replace(THERE, uncertainty_ms=float("inf")))
    assert check.verdict is WARNING


def test_latency() -> None:
    far = (20.0, 21.0, 60.0)
    (source,) = found("source latency", replace(HERE, pings_ms=far))
    (target,) = found("target latency", target=replace(THERE, pings_ms=far))
    assert (source.verdict, target.verdict) == (WARNING, OK) and "21.00 ms" in source.fact and "60.0 ms" in source.fact


def test_a_certificate_that_ends_soon() -> None:
    (check,) = found("target TLS", target=replace(THERE, certificate_days=3.2))
    assert check.verdict is WARNING and "3 days" in check.fact


def test_no_tls_over_the_network() -> None:
    plain = replace(HERE, url=parse_url("redis://old"), tls="", certificate_days=None)
    assert [check.verdict for check in found("source TLS", plain)] == [WARNING]
    local = replace(plain, url=parse_url("redis://127.0.0.1"))
    assert [check.verdict for check in found("source TLS", local)] == [OK]


def test_an_old_server() -> None:
    (check,) = found("source version", with_info(HERE, **AZURE))
    assert check.verdict is WARNING and "6.0.14" in check.fact


@pytest.mark.parametrize(("dbs", "text"), [([], ""), ([0], "0"), ([0, 1, 2, 5, 7, 8], "0-2, 5, 7-8")])
def test_numbers(dbs: list[int], text: str) -> None:
    assert _numbers(dbs) == text


def test_secrets_and_advice() -> None:
    """Whatever goes wrong, what is said holds no password, and a problem says what to do."""
    everything: dict[str, Any] = {need.name: "NOPERM this user has no permissions" for need in NEEDS}
    worst = replace(THERE, refused=everything, not_allowed={b"GET": "NOPERM"}, dbs=frozenset(), tls="")
    checks = judge(with_info(HERE, db7="keys=1"), worst, Sample())
    assert "secret" not in repr(checks)
    assert all(check.advice for check in checks if check.verdict is not OK)
