"""What to do when a server's process was replaced: settled is not durable (invariant 14).

Owns the judgement on a changed `run_id`. A server that restarted, or a replica that took over, may lack the last
writes: the keys of the last minutes are copied again, and a verify is due. A mirror side that came back with far fewer
keys is filled anew. A *serving* side that came back with far fewer keys may have lost its data: nothing is deleted on
the mirror side, which may hold the only copy, until the operator says so.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxy.journal import BARRIER_DB
from proxy.roles import Name

if TYPE_CHECKING:
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

FEWER = 0.5  # of the keys known before: less than that is "far fewer"
FEW_KEYS = 100  # with fewer keys than this before, a loss says nothing


def far_fewer(before: int, now: int) -> bool:
    """Whether a server that had `before` keys and has `now` has lost its data."""
    return before >= FEW_KEYS and now < before * FEWER


def restarted(proxy: Proxy, name: Name, before: int, now: int) -> None:
    """The server `name` is another process than before. Called before anything is sent to it."""
    side = proxy.sides[name]
    log.warning("%s %s is another process now, with %d keys (%d before)", name.value, side.url.address, now, before)
    if proxy.finished:
        return  # the other side is not kept equal any more
    proxy.verified_epoch = -1
    serves = name is proxy.roles.serving
    if not serves and proxy.state.durable.backfilled:
        before = max(before, proxy.serving.size)  # it was equal to that
    if far_fewer(before, now):
        if serves:
            freeze(proxy, f"the {name.value} came back with {now:,} keys instead of {before:,}")
        else:
            proxy.fall_back(f"the {name.value} came back with {now:,} keys instead of {before:,}")
            return
    if not proxy.state.durable.backfilled:  # what a backfill has copied in the last moments may be lost
        proxy.refill()
    recent = proxy.journal.recent()
    if recent is None:
        proxy.fall_back(
            f"the {name.value} was restarted, and more keys were written in the last minutes than are known"
        )
        return
    if any(db == BARRIER_DB for db, _ in recent):
        proxy.fall_back(f"the {name.value} was restarted minutes after a command that touches every key")
        return
    log.info("%d keys written in the last minutes are copied again", len(recent))
    for place in recent:
        proxy.hub.repair.mark_unordered(place, f"written shortly before the {name.value} was restarted")


def freeze(proxy: Proxy, why: str) -> None:
    """Delete nothing on the mirror side until the operator has decided."""
    text = f"{why}: nothing is deleted on the {proxy.roles.mirror.value} until you say `crossfade thaw` (the loss is "
    text += "real and wanted), or let the other side serve with `crossfade flip --force`"
    proxy.hub.repair.frozen = text
    proxy.state.remember(frozen=text)


def thaw(proxy: Proxy) -> bool:
    """The operator accepts the loss; False when nothing was frozen."""
    if not proxy.hub.repair.frozen:
        return False
    proxy.hub.repair.frozen = ""
    proxy.state.remember(frozen="")
    proxy.hub.repair.keys.retry(float("inf"))  # those that waited for this
    proxy.fall_back("the loss of keys was accepted")
    return True
