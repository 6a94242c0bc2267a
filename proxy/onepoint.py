"""Both sides read at one point of the order: in the lane, and, when that reply arrives, in the mirror queue.

Owns that single step, for whoever compares. What is read, and what the replies mean, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import hiredis
import trio

from backfill.errors import BackfillError
from backfill.rebuild import Command
from resp.errors import ProtocolError
from resp.frames import decode

if TYPE_CHECKING:
    from proxy.hub import Hub

Replies = list[Any]


class Lost(BackfillError):
    """A side went away in the middle."""


class Refused(BackfillError):
    """A server refused the read."""


async def read_both(
    hub: Hub,
    db: int,
    left: Sequence[Command],
    right: Callable[[Replies], Sequence[Command]] = lambda replies: (),
    at_reply: Callable[[], None] = lambda: None,
) -> tuple[Replies, Replies]:
    """The decoded replies of the serving side to `left`, and of the mirror side to what `right` makes of them (which is
    not asked when it makes nothing). `at_reply` is called with each side's reply, before anything that comes behind
    it is looked at. Errors: Lost, Refused."""
    frames: list[bytes | None] = []
    done = trio.Event()

    def on_mirror(frame: bytes | None) -> None:
        frames.append(frame)
        at_reply()
        done.set()

    def on_serving(frame: bytes | None) -> None:
        frames.append(frame)
        at_reply()
        commands: Sequence[Command] = ()
        try:
            replies = decode(frame) if frame is not None else None
            commands = right(replies) if isinstance(replies, list) else ()
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, ProtocolError):
            pass  # another type than was thought: the caller sees it; the lane must not suffer from it
        if commands:
            hub.mirror.call(db, commands, on_mirror)
        else:
            done.set()

    await hub.until(lambda: not hub.flipping)
    hub.lane.call(db, left, on_serving)
    hub.flush()
    await done.wait()
    found = [_replies(frame) for frame in frames]
    return found[0], found[1] if len(found) > 1 else []


async def read_mirror(hub: Hub, db: int, commands: Sequence[Command]) -> Replies:
    """The decoded replies of the mirror side alone, in its queue. Errors: Lost, Refused."""
    frames: list[bytes | None] = []
    done = trio.Event()

    def on_mirror(frame: bytes | None) -> None:
        frames.append(frame)
        done.set()

    await hub.until(lambda: not hub.flipping)
    hub.mirror.call(db, commands, on_mirror)
    hub.flush()
    await done.wait()
    return _replies(frames[0])


def _replies(frame: bytes | None) -> Replies:
    if frame is None:
        raise Lost("a connection was lost in the middle: run it again")
    replies = decode(frame)
    if isinstance(replies, hiredis.ReplyError):
        raise Refused(str(replies))
    if not isinstance(replies, list):
        raise Refused(f"not what a server answers: {frame[:60]!r}")
    return replies
