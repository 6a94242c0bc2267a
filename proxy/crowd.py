"""What is done for all sessions of a process at once; the same in the proxy and in each of its fronts.

Owns what all clients together may make us keep (invariant 8): each one's part of it, and who goes when it is too much.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from proxy.session import HELD_BYTES, READ_BYTES

if TYPE_CHECKING:
    from proxy.session import Session

log = logging.getLogger("crossfade")

HELD_TOTAL_BYTES = 32 * 1024 * 1024  # of commands that wait to be taken, over all clients; in memory up to 8 times that
CLIENTS_BYTES = 513 * 1024 * 1024  # what all clients make us keep (Session.weight); one longest argument, and a little


def part_of_each(clients: int) -> int:
    """Bytes of commands of one client that may wait. A single read is always possible."""
    return max(READ_BYTES, min(HELD_BYTES, HELD_TOTAL_BYTES // (clients or 1)))


def shed(sessions: Iterable[Session]) -> None:
    """While all clients together make us keep too much, the heaviest is disconnected, as a server with
    maxmemory-clients does."""
    weights = {session: session.weight for session in sessions}
    total = sum(weights.values())
    while total > CLIENTS_BYTES:
        heaviest = max(weights, key=weights.__getitem__)
        size = weights.pop(heaviest)
        what = "client %s is disconnected: it makes us keep %d bytes, all clients %d"
        log.warning(what, heaviest.address, size, total)
        total -= size
        heaviest.close()


def settle(touched: list[Session]) -> None:
    """Send each what has gathered for it, and go on with what it has waiting. A defect costs one client only."""
    for session in touched:
        try:
            session.flush()
            if session.backlog or session.deferred is not None:
                session.drained()
        except Exception as error:
            session.broke(error)
