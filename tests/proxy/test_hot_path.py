"""A guard for the hot path's cost that holds on any machine: bytecodes executed per command, not seconds.

The limits are a twentieth above what is measured (`python -m bench.hotpath`, CPython 3.11). Who makes the path longer
on purpose raises a limit here and says in the commit what `make bench` showed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.hotpath import CASES, Case, Rig, bytecodes_per_command

LIMITS = {
    "GET, P1": 477,
    "SET, P1": 634,
    "INCR, P1": 627,
    "LPUSH, P1": 647,
    "SADD, P1": 647,
    "ZADD, P1": 704,
    "HSET, P1": 704,
    "GET, P16": 53,
    "SET, P16": 86,
    "INCR, P16": 91,
    "LPUSH, P16": 95,
    "SADD, P16": 95,
    "ZADD, P16": 99,
    "HSET, P16": 99,
}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="bytecodes are counted of CPython 3.11")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_hot_path_is_not_longer(case: Case, tmp_path: Path) -> None:
    rig = Rig(case, tmp_path)
    for _ in range(3):
        rig.round()
    assert bytecodes_per_command(rig) <= LIMITS[case.name]
    rig.close()
