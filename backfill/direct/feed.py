"""Where a live copy learns of changes: CLIENT TRACKING BCAST, else keyspace notifications.

Owns one connection to the source that tells the keys that anybody changes, after the change. Tracking is ordered and
complete but for what is named in `live`; it names no db. Notifications name the db, but only a server that was told to
notifies of everything. In both, a lost connection (an overflow ends it, too) is a gap: ConnectionLost, to the caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import hiredis
import trio

from ..errors import BackfillError, ConnectError
from ..url import Url
from .pipe import Pipe

HEARTBEAT_S = 1.0
CHANNELS = b"__keyspace@*__:*"
NEEDED = frozenset("g$lshzxet")  # classes of notify-keyspace-events; A stands for all of them
Changed = Callable[[int | None, bytes], None]  # db, if it is told; key


class CannotFollow(BackfillError):
    """The source tells of changes in no way."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed that is on. `doubt`: why not every change may be told; `flushes`: whole-db flushes are told."""

    name: str
    pipe: Pipe
    flushes: bool
    doubt: str = ""

    async def barrier(self) -> None:
        """Every change that was made before is told when this returns. Invalidations are written behind the replies of
        the same turn of the server's loop, so it takes two PINGs, one after the other. Errors: ConnectionLost."""
        await self.pipe.call(b"PING")
        await self.pipe.call(b"PING")

    async def watch(self) -> None:
        """Until the feed breaks. Errors: ConnectionLost."""
        while True:
            await trio.sleep(HEARTBEAT_S)
            await self.pipe.call(b"PING")


@asynccontextmanager
async def open_feed(url: Url, changed: Changed, flushed: Callable[[], None]) -> AsyncGenerator[Feed, None]:
    """The best feed that the source offers, already on. Errors: CannotFollow, ConnectError, ConnectionLost."""
    async with AsyncExitStack() as stack:
        feed = await _tracking(stack, url, changed, flushed)
        if isinstance(feed, str):
            feed = await _notifications(stack, url, changed, refusal=feed)
        yield feed


async def _tracking(stack: AsyncExitStack, url: Url, changed: Changed, flushed: Callable[[], None]) -> Feed | str:
    """The feed, or why there is none."""
    opening = Pipe.open(url, name="crossfade-feed", resp=3, on_push=_tracked(changed, flushed))
    try:
        pipe = await stack.enter_async_context(opening)
    except ConnectError as problem:
        if problem.kind != "protocol":
            raise
        return problem.text
    reply = await pipe.call(b"CLIENT", b"TRACKING", b"ON", b"BCAST")
    if isinstance(reply, hiredis.ReplyError):
        return str(reply)
    feed = Feed("CLIENT TRACKING", pipe, flushes=True)
    await feed.barrier()
    return feed


async def _notifications(stack: AsyncExitStack, url: Url, changed: Changed, *, refusal: str) -> Feed:
    pipe = await stack.enter_async_context(Pipe.open(url, name="crossfade-feed", on_push=_notified(changed)))
    doubt = await _doubt(pipe, refusal)
    reply = await pipe.call(b"PSUBSCRIBE", CHANNELS)
    if isinstance(reply, hiredis.ReplyError):
        raise CannotFollow(_no_way(refusal, str(reply)))
    return Feed("keyspace notifications", pipe, flushes=False, doubt=doubt)


def _tracked(changed: Changed, flushed: Callable[[], None]) -> Callable[[Any], None]:
    def on_push(push: Any) -> None:
        if push[0] != b"invalidate":
            return
        if push[1] is None:
            flushed()
        else:
            for key in push[1]:
                changed(None, key)

    return on_push


def _notified(changed: Changed) -> Callable[[Any], None]:
    def on_push(push: Any) -> None:
        place, _, key = push[2].partition(b"__:")
        changed(int(place.removeprefix(b"__keyspace@")), key)

    return on_push


async def _doubt(pipe: Pipe, refusal: str) -> str:
    """Why notifications may not tell everything. Errors: CannotFollow when they tell nothing."""
    reply = await pipe.call(b"CONFIG", b"GET", b"notify-keyspace-events")
    if isinstance(reply, hiredis.ReplyError) or len(reply) != 2:
        return "the source does not tell whether it notifies of every change (notify-keyspace-events KEA?)"
    flags = reply[1].decode()
    if "K" in flags and ("A" in flags or set(flags) >= NEEDED):
        return ""
    raise CannotFollow(_no_way(refusal, f"notify-keyspace-events is {flags!r}, and would have to be 'KA'"))


def _no_way(tracking: str, notifications: str) -> str:
    return (
        f"the source cannot be followed: CLIENT TRACKING: {tracking}; keyspace notifications: {notifications}. Allow "
        "one of them, use --mode snapshot, or put the proxy in between"
    )
