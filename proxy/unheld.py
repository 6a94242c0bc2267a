"""What the two sides cannot have in common: named before a flip, counted after it.

Owns the words for it. A side that is older than the other does not know all its commands, and cannot hold all its data.
What applications use of that is seen in four places: the serving side's INFO commandstats (also what scripts ran), the
commands that clients asked for in vain (`Recorder.wanted`), the mirror side's refusals (`Judge.misunderstood`), and
the keys of which a copy lost something (`Repair.losses`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from backfill.commandstats import unknown_there

if TYPE_CHECKING:
    from proxy.server import Proxy

MOST = 8  # named in one line
REVIEW_SECONDS = 5.0  # how often it is looked whether a key that lost something still does
REVIEWED = 200  # keys at once

FEATURES: Mapping[bytes, str] = {
    b"HPEXPIREAT": "TTLs of hash fields (HEXPIRE)",
    b"VADD": "vector sets (VADD)",
    b"JSON.SET": "JSON (JSON.SET)",
    b"BF.ADD": "Bloom filters (BF.ADD)",
    b"CF.ADD": "Cuckoo filters (CF.ADD)",
    b"CMS.INITBYDIM": "count-min sketches (CMS.INITBYDIM)",
    b"TOPK.RESERVE": "top-k lists (TOPK.RESERVE)",
    b"TDIGEST.CREATE": "t-digests (TDIGEST.CREATE)",
    b"TS.CREATE": "time series (TS.CREATE)",
    b"GRAPH.QUERY": "graphs (GRAPH.QUERY)",
    b"FT.CREATE": "search indexes (FT.CREATE)",
    b"FUNCTION": "functions (FUNCTION LOAD)",
}
"""A command that a server has with a kind of data -> what applications call that."""


def warnings(proxy: Proxy) -> list[str]:
    """What applications may notice of a flip now, with what can be done about it."""
    serving, mirror = proxy.serving, proxy.mirror
    ours, theirs = serving.name.value, mirror.name.value
    recorder, judge = proxy.hub.recorder, proxy.hub.mirror.judge
    found = []
    if unknown := unknown_there(serving.used, mirror.facts.commands):
        found.append(
            f"the {theirs} does not know {_counted(unknown)}, in use on the {ours}: after the flip clients get errors"
        )
    if judge.misunderstood:
        found.append(
            f"the {theirs} does not understand what clients send: {_counted(judge.misunderstood)}: the keys are "
            "copied instead, but after the flip clients get these errors"
        )
    if recorder.wanted:
        found.append(
            f"clients asked in vain for {_counted(recorder.wanted)}, which the {theirs} knows: after the flip it "
            f"works, and the {ours} cannot hold all that it makes"
        )
    if new := features(mirror.facts.commands, serving.facts.commands):
        found.append(
            f"the {ours} cannot hold {', '.join(new)}: once applications use that on the {theirs}, a flip back loses "
            "it (`status` counts it)"
        )
    return found


def features(there: frozenset[bytes], here: frozenset[bytes]) -> list[str]:
    """Kinds of data that only a server with the commands `there` has."""
    return [text for name, text in FEATURES.items() if here and name in there and name not in here]


def counted(proxy: Proxy) -> dict[str, Any]:
    """For `status`: what the mirror side cannot hold or does not know, of what is in use."""
    hub = proxy.hub
    if proxy.finished:
        return {"commands": {}, "misunderstood": {}, "keys": 0, "examples": []}
    unknown = unknown_there(proxy.serving.used, proxy.mirror.facts.commands)
    return {
        "commands": {name.decode(errors="replace"): calls for name, calls in unknown.items()},
        "misunderstood": dict(hub.mirror.judge.misunderstood.most_common(MOST)),
        "keys": len(hub.repair.losses),
        "examples": [f"db {db} {key!r}: {text}" for (db, key), text in hub.repair.losses.first(MOST)],
    }


async def review(proxy: Proxy) -> None:
    """Copy again what lost something, for ever: a key that was deleted or changed since may be whole by now."""
    repair = proxy.hub.repair
    while True:
        await trio.sleep(REVIEW_SECONDS)
        if repair.losses and not proxy.hub.flipping:
            for place in repair.losses.turn(REVIEWED):
                repair.mark_unordered(place, "may be whole by now", lag=True)
            proxy.hub.flush()


def _counted(counts: Mapping[bytes, int] | Mapping[str, int]) -> str:
    items: Iterable[tuple[bytes | str, int]] = counts.items()
    texts = [f"{name.decode(errors='replace') if isinstance(name, bytes) else name} ({n:,})" for name, n in items]
    more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ", ".join(texts[:MOST]) + more
