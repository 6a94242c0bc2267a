"""What a session's own connection carries between two commands, and how it is made anew on another one. Pure.

Owns which commands leave state, and of what kind: subscriptions, an open MULTI, tracking (whose ids are the proxy's
towards clients, the server's towards the server), and what nobody can tell. `pinned.py` keeps the accounts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from resp.catalog import Spec
from resp.numbers import integer

Command = list[bytes]

TRACKING = b"CLIENT TRACKING"
REPLAYED = frozenset([b"MONITOR", TRACKING])  # state that is made anew after a flip
STICKY = frozenset([b"READONLY", b"READWRITE", b"ASKING"])
_MESSAGES = (b"*3\r\n$7\r\nmessage\r\n", b"*4\r\n$8\r\npmessage\r\n", b"*3\r\n$8\r\nsmessage\r\n")
_NUMBER = re.compile(rb":\d+\r\n")


@dataclass(slots=True)
class Transaction:
    """An open MULTI: what it has queued, and the db in which it stands."""

    db: int
    queue: list[tuple[Spec, Command, int]] = field(default_factory=list)  # with the db of each
    poisoned: bool = False  # a command was refused: EXEC must fail

    def add(self, spec: Spec, args: Command) -> None:
        """One more command is queued."""
        self.queue.append((spec, args, self.db))
        if spec.name == b"SELECT" and len(args) == 2:
            self.db = integer(args[1]) or 0


class Group(Enum):
    """The kinds of subscription, each counted by the server on its own."""

    CHANNEL = "channel"
    PATTERN = "pattern"
    SHARD = "shard"


SUBSCRIBING: dict[bytes, tuple[Group, bool]] = {
    b"SUBSCRIBE": (Group.CHANNEL, True),
    b"UNSUBSCRIBE": (Group.CHANNEL, False),
    b"PSUBSCRIBE": (Group.PATTERN, True),
    b"PUNSUBSCRIBE": (Group.PATTERN, False),
    b"SSUBSCRIBE": (Group.SHARD, True),
    b"SUNSUBSCRIBE": (Group.SHARD, False),
}
NOT_SUBSCRIBING = (Group.CHANNEL, False)
_SUBSCRIBE_NAMES = {Group.CHANNEL: b"SUBSCRIBE", Group.PATTERN: b"PSUBSCRIBE", Group.SHARD: b"SSUBSCRIBE"}


class Subscribed:
    """What one connection is subscribed to, as of the last command sent."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[Group, dict[bytes, None]] = {group: {} for group in Group}

    def __repr__(self) -> str:
        return f"<Subscribed {self.counts()}>"

    def __bool__(self) -> bool:
        return any(self._names.values())

    def counts(self) -> tuple[int, int, int]:
        """Channels, patterns and shard channels."""
        channels, patterns, shards = (len(self._names[group]) for group in Group)
        return channels, patterns, shards

    def replies(self, args: Command, resp: int) -> int:
        """How many replies (not pushes) this command of SUBSCRIBING gets."""
        group, adding = SUBSCRIBING[args[0].upper()]
        everything = not adding and len(args) == 1
        count = max(1, len(self._names[group])) if everything else len(args) - 1
        if count == 0:
            return 1  # wrong number of arguments
        return 0 if resp == 3 else count  # in RESP3 confirmations are pushes

    def follow(self, args: Command) -> None:
        """This command of SUBSCRIBING is sent."""
        group, adding = SUBSCRIBING[args[0].upper()]
        names = self._names[group]
        if adding:
            names.update(dict.fromkeys(args[1:]))
        elif len(args) == 1:
            names.clear()
        else:
            for gone in args[1:]:
                names.pop(gone, None)

    def commands(self) -> list[Command]:
        """What makes it anew."""
        return [[_SUBSCRIBE_NAMES[group], *names] for group, names in self._names.items() if names]


def is_message(frame: bytes) -> bool:
    """Whether a frame that is not a push is a message to a subscriber, or a line of MONITOR."""
    return frame.startswith(_MESSAGES) or (frame[:1] == b"+" and frame[1:2].isdigit())


def leaves_state(spec: Spec, args: Command) -> bool:
    """Whether the command may leave state on its connection that cannot be told, nor made anew elsewhere. One that only
    the server knows may, unless it is about keys (a module's data type)."""
    return spec.name in STICKY or (not spec.known and not spec.keys(args))


# -- CLIENT TRACKING ---------------------------------------------------------------------------------------------------


def redirected(args: Command, client_id: Callable[[int], int | None]) -> Command:
    """CLIENT TRACKING … REDIRECT id: clients know the proxy's ids, the server its own (`client_id`)."""
    args = list(args)
    for index in _redirections(args):
        number = client_id(integer(args[index]) or 0)
        if number is not None:
            args[index] = b"%d" % number
    return args


def as_asked(frame: bytes, args: Command) -> bytes:
    """A frame in which the server tells the id of the connection that tracking is redirected to, with the id that was
    asked for in `args`."""
    redirections = _redirections(args)
    return _NUMBER.sub(b":%b\r\n" % args[redirections[-1]], frame, count=1) if redirections else frame


def redirected_to(args: Command) -> list[int]:
    """The ids of the proxy that these arguments name; the last counts."""
    return [integer(args[index]) or 0 for index in _redirections(args)]


def _redirections(args: Command) -> list[int]:
    return [index + 1 for index in range(3, len(args) - 1) if args[index].upper() == b"REDIRECT"]
