"""Small keys are copied together: read in one MULTI, at one point of the order, and queued as one item.

Owns: which keys are read together, and what of the answers can be written together. What is not an ordinary small
key (missing, refused, grown) goes on as if it had been read alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backfill.codec import Form, head_commands, times
from backfill.rebuild import restore
from proxy.dirty import Place
from resp.encode import encode
from resp.frames import decode

if TYPE_CHECKING:
    from proxy.lane import Lane
    from proxy.mirror import Mirror
    from proxy.repair import Repair
    from proxy.roles import Roles

KEYS = 32  # at once
BYTES = 64 * 1024  # of them at once: the server runs such a MULTI in about 0.1 ms

_Asked = tuple[Place, int, int]  # a key, the serial of its read, its bytes


class Together:
    """Keys of one db that are to be read in one go."""

    def __init__(self, repair: Repair, roles: Roles, lane: Lane, mirror: Mirror) -> None:
        self.reading_bytes = 0  # asked for and not yet answered, about
        self._repair = repair
        self._roles = roles
        self._lane = lane
        self._mirror = mirror
        self._group: list[_Asked] = []
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Together {len(self._group)} keys, reading {self.reading_bytes} bytes>"

    def add(self, place: Place, serial: int, size: int) -> None:
        """Read this key with others."""
        group = self._group
        if group and (group[0][0][0] != place[0] or self._bytes + size > BYTES):
            self.read()
        self.reading_bytes += size
        self._bytes += size
        self._group.append((place, serial, size))
        if len(self._group) == KEYS:
            self.read()

    def read(self) -> None:
        """One MULTI for the keys that wait for that: all of them at one point of the order."""
        if not self._group:
            return
        group, size = self._group, self._bytes
        self._group, self._bytes = [], 0
        heads = [head_commands(place[1], self._roles.serving_facts.commands) for place, _, _ in group]
        absolute = len(heads[0][0]) > 1  # PEXPIRETIME, and the clock behind it
        clock, deadline = (1, 0) if absolute else (0, 1)
        # All deadlines before all payloads: on 6.2 PTTL counts from the moment it runs, and DUMP may take its time.
        commands = [
            heads[0][clock],
            *(head[deadline] for head in heads),
            *([b"DUMP", place[1]] for place, _, _ in group),
        ]

        def on_reply(frame: bytes | None) -> None:
            self.reading_bytes -= size
            waiting = [asked for asked in group if self._repair.keys.reading(asked[0], asked[1])]
            if frame is None:
                for place, _, _ in waiting:
                    self._repair.keys.failed(place, "connection to the serving side lost")
                return
            replies = decode(frame)
            if not isinstance(replies, list) or len(replies) != 2 * len(group) + 1:  # refused: whose fault was it?
                for asked in waiting:
                    self._repair.read_alone(*asked)
                return
            self._on_read(group, replies, absolute)

        self._lane.call(group[0][0][0], commands, on_reply)

    def _on_read(self, group: list[_Asked], replies: list[Any], absolute: bool) -> None:
        """Queue the copies of all with a plain answer as one item; each of the others has its own three replies."""
        reading, clock, count = self._repair.keys.reading, replies[0], len(group)
        deadlines, payloads = replies[1 : count + 1], replies[count + 1 :]
        sizes: dict[Place, int] = {}
        commands: list[bytes] = []
        others: list[tuple[Place, list[Any]]] = []
        for (place, serial, _), deadline, payload in zip(group, deadlines, payloads, strict=True):
            if reading(place, serial):
                own = [deadline, clock, payload] if absolute else [clock, deadline, payload]
                command = self._command(place[1], own)
                if command is None:
                    others.append((place, own))
                else:
                    sizes[place] = len(payload)
                    commands.append(command)
        if commands:
            self._repair.queued_together(sizes, self._mirror.copies(list(sizes), commands))
        for place, own in others:
            self._repair.on_replies(place, Form.DUMP, None, own)

    def _command(self, key: bytes, replies: list[Any]) -> bytes | None:
        """What copies this key, encoded; None: it is no ordinary small key."""
        payload = replies[2]
        if type(payload) is not bytes or len(payload) > BYTES:
            return None
        try:
            deadline = times(replies[0], replies[1])[1]
        except (IndexError, TypeError, ValueError):  # refused, or not what a server answers
            return None
        return encode(restore(key, payload, deadline, shift_ms=self._roles.shift_ms))
