"""What the owner has of a front: its guests, known by what the front says of them, and its end of the trunk.

Owns that a guest looks like a client wherever clients are listed, counted or disconnected, and that the trunk changes
its context (db, protocol) between two commands without a reply and without waiting.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxy.session import MAX_WINDOW, Command, Mode, Session
from resp.numbers import integer
from resp.plain import MAX_BYTES

if TYPE_CHECKING:
    import socket

    from proxy.hub import Hub

CONTEXT = b"CROSSFADE.CONTEXT"  # db, RESP version: of the commands behind it on a trunk. Has no reply
HEADER = struct.Struct("!I")  # bytes of the group that follows
GROUP_BYTES = MAX_BYTES  # of several commands: as much as is read in C
READ_BYTES = 256 * 1024
TRUNK_WINDOW = 32 * MAX_WINDOW  # commands of one front in flight; each of its guests has a window of its own there


class Guest:
    """A client whose commands come down a front's trunk. What it does there (`idle`, `cmd`) only the front knows."""

    pin = None
    mode = Mode.READY
    buffered = 0
    address: str
    local_address: str
    name: bytes
    connected_at: float
    last_at: float

    def __init__(self, hub: Hub, number: int, address: str, local_address: str, kill: Callable[[int], None]) -> None:
        self.hub = hub
        self.id = number
        self.address = address
        self.local_address = local_address
        self.connected_at = self.last_at = hub.clock()
        self.db = 0
        self.resp = 2
        self.name = b""
        self.user = b"default"
        self.library: dict[bytes, bytes] = {}
        self.last_command: Command = []
        self.backlog: list[Command] = []
        self.killed = False
        self._kill = kill

    def __repr__(self) -> str:
        return f"<Guest {self.id} {self.address} db={self.db} resp={self.resp}>"

    def fileno(self) -> int:
        """The owner has no socket of it."""
        return -1

    def close(self) -> None:
        """Have its front hang up."""
        if not self.killed:
            self.killed = True
            self._kill(self.id)


class TrunkSession(Session):
    """The owner's end of a front's shared connection: a session, but not a client.

    Its bytes come in groups, each with its length in front: whole commands, a MULTI block in one piece. So nothing is
    cut in the middle on the way here, and what several guests have sent at once is read as one pipeline (`express.py`)
    where it is alike.
    """

    __slots__ = ("_raw", "_refuse_db")

    is_client = False
    drains = False

    def __init__(
        self, hub: Hub, sock: socket.socket, number: int, db: int, name: str, refuse_db: Callable[[int], None]
    ) -> None:
        super().__init__(hub, sock, name, number, authenticated=True, db=db)
        self._raw = bytearray()
        self.widest = self.window = TRUNK_WINDOW
        self._refuse_db = refuse_db

    @property
    def weight(self) -> int:
        """None: guests are weighed where they are."""
        return 0

    def on_readable(self) -> None:
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hung_up()
            return
        raw, position = self._raw, 0
        raw += data
        while position + HEADER.size <= len(raw):
            end = position + HEADER.size + HEADER.unpack_from(raw, position)[0]
            if end > len(raw) or not self.open:
                break
            self.read(bytes(memoryview(raw)[position + HEADER.size : end]))
            position = end
        del raw[:position]

    def told(self, args: Command) -> bool:
        """CONTEXT, which may come between any two commands: what follows belongs to another guest.

        A db that the serving side does not have (any more) must not reach the lane: its guests are disconnected, and
        the trunk is made anew without what they have sent.
        """
        if args[0] != CONTEXT or len(args) != 3:
            return False
        db, resp = integer(args[1]) or 0, integer(args[2]) or 2
        link = self.hub.lane.link
        if link is not None and db not in link.dbs:
            self._refuse_db(db)
            self.close()
        else:
            self.db, self.resp = db, resp
        return True


def state_of(session: Session) -> dict[str, Any]:
    """What a client has become, as its front tells the owner."""
    return {
        "id": session.id,
        "db": session.db,
        "resp": session.resp,
        "name": session.name.decode("latin-1"),
        "user": session.user.decode("latin-1"),
        "library": {name.decode(): value.decode("latin-1") for name, value in session.library.items()},
        "authenticated": session.authenticated,
    }


def adopt(client: Session | Guest, state: dict[str, Any]) -> None:
    """The same, told the owner."""
    client.db, client.resp = state["db"], state["resp"]
    client.name, client.user = state["name"].encode("latin-1"), state["user"].encode("latin-1")
    client.library = {name.encode(): value.encode("latin-1") for name, value in state["library"].items()}
