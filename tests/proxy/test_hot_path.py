"""A guard for the hot path's cost that holds on any machine: bytecodes executed per command, not seconds.

The limits are a tenth above what is measured (`python -m bench.hotpath`, CPython 3.11). Who makes the path longer on
purpose raises a limit here and says in the commit what `make bench` showed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.hotpath import CASES, Case, Rig, bytecodes_per_command

LIMITS = {
    "GET, P1": 480,
    "SET, P1": 800,
    "INCR, P1": 910,
    "LPUSH, P1": 960,
    "ZADD, P1": 950,
    "HSET, P1": 950,
    "GET, P16": 48,
    "SET, P16": 96,
    "INCR, P16": 190,
    "LPUSH, P16": 195,
    "ZADD, P16": 195,
    "HSET, P16": 195,
}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="bytecodes are counted of CPython 3.11")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_hot_path_is_not_longer(case: Case, tmp_path: Path) -> None:
    rig = Rig(case, tmp_path)
    for _ in range(3):
        rig.round()
    assert bytecodes_per_command(rig) <= LIMITS[case.name]
    rig.close()
