"""CPU time of processes, as the kernel accounts it.

The process CPU clock is the sum of user and system time of all threads, the finished ones too: utime + stime of
/proc/PID/stat, but in nanoseconds rather than in ticks of 10 ms. Linux only.
"""

import time
from pathlib import Path

_SCHEDULED = 2  # CPUCLOCK_SCHED of linux/posix-timers.h: user and system time of the whole process
SETTLE_POLL_S = 0.06
SETTLE_SHARE = 0.05  # a proxy that uses less of a core than this has nothing left to do
SETTLE_LIMIT_S = 10.0


def cpu_seconds(pid: int) -> float:
    """CPU seconds of the process and its living children. OSError when it is gone."""
    return own_cpu_seconds(pid) + sum(cpu_seconds(child) for child in _children(pid))


def own_cpu_seconds(pid: int) -> float:
    """The same without its children."""
    return time.clock_gettime(((~pid) << 3) | _SCHEDULED)


def settle(pid: int) -> bool:
    """Waits until the process is idle (a mirror's queue is worked off after the client has its last reply).

    False when it did not come to rest within the limit.
    """
    give_up = time.monotonic() + SETTLE_LIMIT_S
    before, at = cpu_seconds(pid), time.monotonic()
    while at < give_up:
        time.sleep(SETTLE_POLL_S)
        now, now_at = cpu_seconds(pid), time.monotonic()
        if now - before < SETTLE_SHARE * (now_at - at):
            return True
        before, at = now, now_at
    return False


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except FileNotFoundError:  # a thread that ended meanwhile, or a kernel without the file
            continue
    return found
