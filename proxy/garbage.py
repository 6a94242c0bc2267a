"""Python's collector of cyclic garbage and the C library's of free memory, kept out of the clients' way.

With hundreds of thousands of dirty keys each full collection stops everything for 100 ms (measured: the slowest
of many batches of 1,000 commands took 129 ms with 440,000 dirty keys, 19 ms without full collections). What the proxy
drops is freed by its reference count; what little hangs together in cycles is collected young, or here, at leisure.

glibc gives memory back to the system as soon as 128 KB are free at the end of the heap, and gets larger blocks from it
each time. The pages then come anew for the next big value, one fault for every 4 KB (measured: SET of 64 KB 3.6 faults,
to encode a value of 200 KB 134 µs for 13). So some is kept.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress

import trio

YOUNG = 10_000  # objects made before the youngest are looked at
MIDDLE = 20  # of such looks before the next older ones are
NEVER = 2**31 - 1  # of those before all are, by itself
COLLECT_SECONDS = 60.0
BUSY_SECONDS = 600.0  # while there is much to look at
KEPT_BYTES = 16 * 1024 * 1024  # free, at the end of the heap
MAPPED_BYTES = 4 * 1024 * 1024  # from here on a block comes from the system, and goes back when it is freed
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def tame() -> None:
    """What is there now stays for good; full collections only by `run`. Freed memory is kept for the next value."""
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
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
