"""A short run of the soak (`make soak` makes a long one): after every quiet period both sides are equal."""

from __future__ import annotations

import pytest

from tests.soak import KINDS, schedule, soak

SEED = 20
FAULTS = 30


@pytest.mark.timeout(150)
@pytest.mark.slow
@pytest.mark.parametrize("pair", [("redis-6.2", "valkey-9.1")])
def test_chaos(pair: tuple[str, str]) -> None:
    run = soak(SEED, FAULTS, seconds=40.0, pair=pair, keys=500)
    assert not run.problems, f"{len(run.problems)} problems:\n" + "\n".join(run.problems[:20])
    assert run.comparisons >= 2 and run.acknowledged and run.commands


def test_a_seed_gives_the_same_schedule_each_time() -> None:
    assert schedule(1, 100) == schedule(1, 100) != schedule(2, 100)
    assert sum(map(len, schedule(3, 100))) == 100
    assert {fault.name for faults in schedule(4, 500) for fault in faults} == set(KINDS)
