"""Clock offsets and who plays which role."""

from __future__ import annotations

import pytest

from proxy.roles import UNKNOWN_CLOCK_MS, Clock, Name, Roles


def test_names() -> None:
    assert Name.SOURCE.other is Name.TARGET
    assert Name.TARGET.other is Name.SOURCE


def test_roles_swap_and_names_do_not() -> None:
    roles = Roles()
    source = roles.facts[Name.SOURCE]
    assert (roles.serving_facts, roles.mirror) == (source, Name.TARGET)
    roles.serving = Name.TARGET
    assert (roles.mirror_facts, roles.mirror) == (source, Name.SOURCE)


def test_a_measurement() -> None:
    clock = Clock()
    assert clock.uncertainty_ms == UNKNOWN_CLOCK_MS
    clock.measured(1000, 6001, 1002)
    assert clock.offset_ms == 5000
    assert clock.uncertainty_ms == 1.5


def test_a_worse_measurement_is_not_taken() -> None:
    clock = Clock()
    clock.measured(1000, 6001, 1002)
    clock.measured(2000, 8000, 2500)
    assert clock.offset_ms == 5000
    assert clock.uncertainty_ms == pytest.approx(1.6)


def test_an_old_measurement_loses_its_weight() -> None:
    """Clocks drift: before long a new one wins."""
    clock = Clock()
    clock.measured(1000, 6001, 1002)
    for second in range(2, 300):
        clock.measured(second * 1000, second * 1000 + 7010, second * 1000 + 20)
    assert clock.offset_ms == 7000
    assert clock.uncertainty_ms >= 10.5


@pytest.mark.parametrize("skew", [-5000.0, 0.0, 12.4])
def test_the_true_offset_is_within_the_uncertainty(skew: float) -> None:
    clock = Clock()
    for sent, there, back in [(0, 3, 1), (1000, 0.1, 0.1), (2000, 50, 0), (3000, 0, 50)]:
        clock.measured(sent, sent + there + skew, sent + there + back)
        assert abs(clock.offset_ms - skew) <= clock.uncertainty_ms


def test_deadlines_between_the_clocks() -> None:
    roles = Roles()
    roles.facts[Name.SOURCE].clock = Clock(100.0, 1.0)
    roles.facts[Name.TARGET].clock = Clock(-50.4, 2.0)
    assert roles.shift_ms == -150
    assert roles.uncertainty_ms == 3.0
    assert roles.mirror_now_ms(1000.0) == 950
    roles.serving = Name.TARGET
    assert roles.shift_ms == 150
