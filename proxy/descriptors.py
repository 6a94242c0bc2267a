"""How many clients there may be: each costs a file descriptor, and one more where it needs a connection of its own.

When descriptors run out, nothing else works either: no reconnect, no journal segment, no operator on the admin socket.
So a client too many is told so, with a server's own words, while there are still some left.
"""

from __future__ import annotations

import resource
from contextlib import suppress

MAX_CLIENTS = 10_000  # as Redis' maxclients
RESERVED = 128  # for listeners, links, journal, jobs, metrics, spare pinned connections
TOO_MANY = b"-ERR max number of clients reached\r\n"


def allowed_clients() -> int:
    """Raise this process's limit of open files as far as is needed and possible; how many clients fit into it."""
    wanted = 2 * MAX_CLIENTS + RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = min(wanted, _bounded(hard))
    if _bounded(soft) < possible:
        with suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            soft = possible
    soft = _bounded(soft)
    return max(1, min(MAX_CLIENTS, (soft - RESERVED) // 2))


def _bounded(limit: int) -> int:
    return 2**31 - 1 if limit == resource.RLIM_INFINITY else limit
