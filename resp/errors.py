"""What goes wrong on the wire.

Owns: the one exception of this package. Refuses to know: what a connection does about it (answer, close, log).
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Bytes that are not the protocol.

    `text` is the wording without an error code, for a client's bytes the server's own ("Protocol error: invalid bulk
    length"); `reply` is the frame that a server would send before it closes the connection. `frames` are the replies
    that a scanner completed before it met the error.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.frames: list[bytes] = []

    @property
    def reply(self) -> bytes:
        return b"-ERR " + self.text.encode("latin-1", "replace") + b"\r\n"
