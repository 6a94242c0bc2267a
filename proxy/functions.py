"""Libraries of functions, which are no keys: copied when a backfill begins.

They are read in the lane, and loaded on the mirror side at that point of the order: what clients load or delete later
follows as an effect. By their source text, not by FUNCTION DUMP: a payload is refused by every older version.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import hiredis

from backfill.streams import pairs
from proxy.onepoint import Replies, read_both

if TYPE_CHECKING:
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

PROBLEM = "functions"
_LIST = [b"FUNCTION", b"LIST", b"WITHCODE"]


async def copy_functions(proxy: Proxy) -> None:
    """Make the mirror side's libraries those of the serving side. What it cannot take is a problem in the status, and
    closes the gate of the flip. Errors: Lost, Refused."""
    roles = proxy.roles
    if not _has_functions(roles.serving_facts.commands):
        return
    able = _has_functions(roles.mirror_facts.commands)
    bodies: list[tuple[str, bytes]] = []

    def load(replies: Replies) -> list[list[bytes]]:
        if isinstance(replies[0], hiredis.ReplyError):
            return []
        bodies.extend(_body(library) for library in replies[0])
        loads = [[b"FUNCTION", b"LOAD", body] for _, body in bodies]
        return [[b"FUNCTION", b"FLUSH", b"SYNC"], *loads] if able else []

    _, there = await read_both(proxy.hub, 0, [_LIST], load)
    failed = [
        f"{name} ({reply})"
        for (name, _), reply in zip(bodies, there[1:], strict=False)
        if isinstance(reply, hiredis.ReplyError)
    ]
    if not able:
        failed = [f"{name} (there are no functions)" for name, _ in bodies]
    proxy.problems.pop(PROBLEM, None)
    if failed:
        text = f"libraries of functions that the {roles.mirror.value} does not take: {', '.join(failed[:5])}"
        log.warning("backfill: %s", text)
        proxy.problems[PROBLEM] = text
        proxy.hub.recorder.unmirrored[f"the mirror side does not take {len(failed)} libraries of functions"] = 1


def _has_functions(commands: frozenset[bytes]) -> bool:
    return b"FUNCTION" in commands or b"FUNCTION LIST" in commands


def _body(library: Any) -> tuple[str, bytes]:
    facts = pairs(library)
    return facts[b"library_name"].decode(errors="replace"), facts[b"library_code"]
