"""Where a test kills the process: named points between any two durable actions of a flip or a finish.

The name comes from the environment, read once at the start; without it a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "CROSSFADE_DIE_AT"
POINTS = (
    "flip begins",  # the gate is passed, nobody waits yet
    "flip drained",  # nobody is served, everything is settled
    "serving opened",  # the state file: nothing, ...
    "serving written",
    "serving synced",
    "serving renamed",  # ... and from here on the other side serves
    "serving durable",
    "flip left behind",
    "flip swapped",
    "flip half handed over",  # one pinned session is there, the others are not
    "flip handed over",
    "finished opened",
    "finished written",
    "finished synced",
    "finished renamed",  # from here on mirroring is ended, or begun again
    "finished durable",
    "finish retired",
    "mirroring again",
)
_AT = os.environ.get(VARIABLE, "")
if _AT and _AT not in POINTS:
    raise SystemExit(f"crossfade: {VARIABLE} names no point: {_AT}")


def reached(point: str) -> None:
    """The process ends here, as by a power switch, if that is wanted."""
    if point == _AT:
        os.kill(os.getpid(), signal.SIGKILL)
