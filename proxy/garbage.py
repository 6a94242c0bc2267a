"""Python's collector of cyclic garbage, kept out of the clients' way.

With hundreds of thousands of dirty keys each full collection stops everything for 100 ms (measured: the slowest
of many batches of 1,000 commands took 129 ms with 440,000 dirty keys, 19 ms without full collections). What the proxy
drops is freed by its reference count; what little hangs together in cycles is collected young, or here, at leisure.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import trio

YOUNG = 10_000  # objects made before the youngest are looked at
MIDDLE = 20  # of such looks before the next older ones are
NEVER = 2**31 - 1  # of those before all are, by itself
COLLECT_SECONDS = 60.0
BUSY_SECONDS = 600.0  # while there is much to look at


def tame() -> None:
    """What is there now stays for good; full collections only by `run`."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, NEVER)


async def run(much: Callable[[], bool]) -> None:
    """Collect now and then; seldom while there is `much` to look at."""
    since = trio.current_time()
    while True:
        await trio.sleep(COLLECT_SECONDS)
        if not much() or trio.current_time() - since > BUSY_SECONDS:
            gc.collect()
            since = trio.current_time()
