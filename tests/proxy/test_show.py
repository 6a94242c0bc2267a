"""What a verify says of itself on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from backfill.counts import STATUSES
from proxy.show import MAX_SHOWN, verify_lines

FINDING = {"db": 3, "key": "k", "key_hex": "6b", "status": "ttl", "detail": "expires only on the target"}


def report(**counts: Any) -> dict[str, Any]:
    different = sum(counts.get(name, 0) for name in STATUSES)
    zeros = dict.fromkeys(STATUSES, 0)
    return {"checked": 9000, "equal": 9000 - different, "seconds": 1.0, "problem": "", **zeros, **counts}


def test_all_is_well() -> None:
    assert list(verify_lines(report(), [])) == ["9,000 keys checked, 9,000 equal, 1.0 s"]


@pytest.mark.parametrize("different", [1, MAX_SHOWN, MAX_SHOWN + 1, 5000])
def test_findings_that_are_not_shown_are_counted_also_beyond_those_that_are_kept(different: int) -> None:
    first, *lines = verify_lines(report(ttl=different), [FINDING] * min(different, 1000))
    assert first == f"9,000 keys checked, {9000 - different:,} equal, {different:,} ttl, 1.0 s"
    shown = min(different, MAX_SHOWN)
    assert lines[:shown] == ["  TTL db 3 'k': expires only on the target"] * shown
    assert [line.split(" more ")[0] for line in lines[shown:]] == (
        [f"  ... and {different - shown:,}"] if different > shown else []
    )


def test_one_that_did_not_end() -> None:
    assert list(verify_lines(report(problem="lost"), []))[-1] == "not complete: lost"
