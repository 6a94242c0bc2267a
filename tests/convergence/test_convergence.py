"""Whatever several clients do, and whatever becomes of the connections: at rest both sides are equal.

Hypothesis draws the histories, and shrinks one that fails to a few commands. CROSSFADE_HISTORIES=1000 plays so many for
each pair of servers, instead of a few: `make histories`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio
from hypothesis import HealthCheck, given, settings

from tests.convergence.histories import History, histories
from tests.convergence.play import Stage
from tests.servers import NAMES, Pool, Server

HISTORIES = int(os.environ.get("CROSSFADE_HISTORIES", "3"))
PAIRS = [(source, target) for source in NAMES for target in NAMES]
FIELD_TIMES = ("redis-8.2", "valkey-9.1")  # targets that have deadlines of hash fields


def check(stage: Stage, field_times: bool) -> None:
    """In a thread of its own, as hypothesis knows no trio."""

    @settings(
        max_examples=HISTORIES,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(histories(field_times))
    def play(history: History) -> None:
        trio.from_thread.run(stage.play, history)

    play()


@pytest.mark.timeout(300 + HISTORIES)  # a history that fails is shrunk for some minutes
@pytest.mark.parametrize(("source", "target"), PAIRS, ids=map("-to-".join, PAIRS))
async def test_both_sides_are_equal_at_rest(
    source: str, target: str, server_pool: Pool, start_server: Callable[..., Server]
) -> None:
    a = server_pool.get(source)
    b = server_pool.get(target) if target != source else start_server(target)
    stage = Stage(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run)
        try:
            await trio.to_thread.run_sync(check, stage, target in FIELD_TIMES)
        finally:
            nursery.cancel_scope.cancel()
    assert stage.played >= HISTORIES
