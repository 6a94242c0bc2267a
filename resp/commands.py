"""Client bytes to commands.

Owns: the framing of commands as servers do it: multibulk and inline, the limits, the error texts (checked against Redis
6.2, 7.0, 8.2 and Valkey 8.1, 9.1). Refuses to know: what a command means, and who sent it.

Two readers share the work. The loop in `feed` is optimistic and fast: it looks headers up in tables made at import, so
it needs no search and no int() for what clients usually send. `_read_command` knows every rule and can stop anywhere.
The first hands over whatever it does not recognise and whatever the end of the chunk cuts off; it never guesses, so any
chunking of the same bytes gives the same commands. Of a deep pipeline, pipelines.py reads what it can vouch for.

Where servers differ, or judge by how the network happened to cut the bytes, the choice here is:
- A line longer than 64 KB is refused even when its end has arrived (Valkey 9.1; Redis takes one that is read at once).
- A NUL byte in a header is an error at once (Valkey; Redis waits for 64 KB). In an inline command it hides the line end
  behind it, as it does for all of them.
- The byte behind a header's CR and the two behind an argument are skipped unread (Redis; Valkey insists on CRLF).
- More than 1024 * 1024 arguments are refused (Redis 6.2; later ones allow 2147483647), for what is accepted here goes
  to any server on a connection that clients share.
"""

from __future__ import annotations

import re

from resp.bulks import MEDIUM_BULKS, SMALL_BULKS
from resp.errors import ProtocolError
from resp.inline import split_args
from resp.pipelines import read_pipeline

MAX_LINE_BYTES = 64 * 1024  # an inline command, or a header whose end does not come (PROTO_INLINE_MAX_SIZE)
MAX_ARGS = 1024 * 1024
MAX_BULK_BYTES = 512 * 1024 * 1024  # proto-max-bulk-len as shipped
MAX_UNAUTHENTICATED_ARGS = 10
MAX_UNAUTHENTICATED_BULK_BYTES = 16384
AUTHENTICATING = frozenset({b"AUTH", b"HELLO"})

_DEEP_PIPELINE_BYTES = 1024  # from here on the detour through hiredis pays,
_NEAR_BYTES = 512  # unless it is one big command: a second one should begin as near as this

_STAR, _DOLLAR = b"*$"
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch  # as string2ll: no plus sign, no leading zeros
_PRINTABLE = bytes.maketrans(b"\r\n", b"  ")  # an error stays one line

# The first 8 bytes of a command, b"*3\r\n$3\r\n": one step per argument behind the name, where the name ends.
_STARTS = {b"*%d\r\n$%d\r\n" % (args, size): (range(args - 1), 8 + size) for args in range(1, 10) for size in range(10)}
_small = SMALL_BULKS.get


class CommandParser:
    """Eats a client's bytes, gives its commands.

    Holds one incomplete command at most (`buffered` bytes); who feeds it limits that. `max_bulk` is the server's
    proto-max-bulk-len in bytes (1 MB at least, as there), `max_args` at least 1000. Both may change between feeds.
    """

    __slots__ = (
        "_args",
        "_bulk",
        "_held",
        "_missing",
        "_taken",
        "authenticated",
        "error",
        "fresh",
        "max_args",
        "max_bulk",
    )

    def __init__(self, *, authenticated: bool = True, max_args: int = MAX_ARGS, max_bulk: int = MAX_BULK_BYTES) -> None:
        self.authenticated = authenticated
        self.max_args = max_args
        self.max_bulk = max_bulk
        self.error: ProtocolError | None = None
        self.fresh = True  # between two commands, nothing held, no error
        self._held = bytearray()  # received, not read yet
        self._args: list[bytes] = []  # read, of the command that is incomplete
        self._missing = 0  # arguments it still lacks
        self._bulk = -1  # length of the argument whose header has been read, or -1
        self._taken = 0  # bytes of it that have been read

    def __repr__(self) -> str:
        state = self.error.text if self.error else f"{len(self._args)} args read, {self._missing} missing"
        return f"<CommandParser: {state}, {self.buffered} bytes buffered>"

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete command, and of what waits behind an AUTH."""
        return self._taken + len(self._held)

    def feed(self, data: bytes, position: int = 0) -> list[list[bytes]]:
        """Every command that is complete now, of `data` from `position` on. Empty ones (`*0`, `*-1`, a blank line) are
        skipped, as servers do.

        A protocol error is in `error` afterwards: the commands before it are returned, what follows it is ignored.

        While `authenticated` is False, reading stops behind an AUTH or HELLO, for its outcome decides the limits of
        what follows: feed b"" once it is answered.
        """
        if not self.fresh or not self.authenticated:
            return self._resume(data)
        commands: list[list[bytes]] = []
        size = len(data)
        if size - position >= _DEEP_PIPELINE_BYTES and data.find(b"*", position + 1, position + _NEAR_BYTES) > 0:
            if position:
                data, size, position = data[position:], size - position, 0
            position = read_pipeline(data, commands)
        while position < size:
            try:
                behind_name, end = _STARTS[data[position : position + 8]]
                end += position
                command = [data[position + 8 : end]]
                for _ in behind_name:
                    header = end + 2
                    start, end = _small(data[header : header + 4]) or MEDIUM_BULKS[data[header : header + 6]]
                    end += header
                    command.append(data[header + start : end])
            except KeyError:
                position = self._read_command(data, position, commands)
                continue
            if end + 2 <= size:
                commands.append(command)
                position = end + 2
            else:
                position = self._read_command(data, position, commands)
        return commands

    def unread(self) -> bytes:
        """What is held, as bytes to be read by another parser from the beginning of a command."""
        if not self._missing:
            return bytes(self._held)
        parts = [b"*%d\r\n" % (len(self._args) + self._missing)]
        parts += [b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in self._args]
        if self._bulk >= 0:
            parts.append(b"$%d\r\n" % self._bulk)
        return b"".join([*parts, self._held])

    def _resume(self, data: bytes) -> list[list[bytes]]:
        """Go on with what is held: command by command before authentication, else only to the end of the first."""
        commands: list[list[bytes]] = []
        if self.error:
            return commands
        position = 0
        lacking = self._bulk + 2 - len(self._held)
        if lacking > len(data):  # a big argument that comes in many chunks is copied once
            self._held += data
            return commands
        self.fresh = True
        if lacking >= 2 and self.authenticated:
            self._take_rest(memoryview(data)[: lacking - 2])
            position = self._read_command(data, lacking, commands)
        else:
            self._held += data
            data = bytes(self._held)
            self._held.clear()
        while position < len(data):
            if self.authenticated and not self._missing:
                commands += self.feed(data, position)
                break
            position = self._read_command(data, position, commands)
            if commands and commands[-1][0].upper() in AUTHENTICATING and not self.authenticated:
                self._hold(data, position)
                break
        return commands

    def _take_rest(self, rest: memoryview) -> None:
        """The argument that was incomplete is complete with this; it is put together at once, and nothing else is."""
        self._args.append(b"".join((self._held, rest)))
        self._held.clear()
        self._taken += self._bulk + 2
        self._missing -= 1
        self._bulk = -1

    def _hold(self, data: bytes, position: int) -> int:
        self._held += memoryview(data)[position:]
        self.fresh = False
        return len(data)

    def _read_command(self, data: bytes, position: int, commands: list[list[bytes]]) -> int:
        """One command, or as much of it as is there, by all the rules. Gives the position behind it: the end of `data`
        when the rest is held, or `error` is set."""
        try:
            if self._missing or self._args:
                return self._read_args(data, position, commands)
            if data[position] == _STAR:
                return self._read_count(data, position, commands)
            return self._read_inline(data, position, commands)
        except ProtocolError as error:
            self.error = error
            self._args = []
            self.fresh, self._missing, self._bulk, self._taken = False, 0, -1, 0
            return len(data)

    def _read_inline(self, data: bytes, position: int, commands: list[list[bytes]]) -> int:
        end = data.find(b"\n", position, position + MAX_LINE_BYTES + 1)
        if end < 0 or data.find(b"\0", position, end) >= 0:
            if len(data) - position > MAX_LINE_BYTES:
                raise ProtocolError("Protocol error: too big inline request")
            return self._hold(data, position)
        if args := split_args(data[position:end].removesuffix(b"\r")):
            commands.append(args)
        return end + 1

    def _read_count(self, data: bytes, position: int, commands: list[list[bytes]]) -> int:
        end = _end_of_header(data, position, "Protocol error: too big mbulk count string")
        if end < 0:
            return self._hold(data, position)
        count = _integer(data[position + 1 : end])
        if count is None or count > self.max_args:
            raise ProtocolError("Protocol error: invalid multibulk length")
        if count > MAX_UNAUTHENTICATED_ARGS and not self.authenticated:
            raise ProtocolError("Protocol error: unauthenticated multibulk length")
        if count <= 0:
            return end + 2
        self._missing = count
        self._taken = end + 2 - position
        return self._read_args(data, end + 2, commands)

    def _read_args(self, data: bytes, position: int, commands: list[list[bytes]]) -> int:
        begin = position
        while self._missing:
            if self._bulk < 0:
                header_end = _end_of_header(data, position, "Protocol error: too big bulk count string")
                if header_end < 0:
                    break
                self._bulk = self._bulk_length(data, position, header_end)
                position = header_end + 2
            end = position + self._bulk
            if end + 2 > len(data):
                break
            self._args.append(data[position:end])
            self._missing -= 1
            self._bulk = -1
            position = end + 2
        else:
            commands.append(self._args)
            self._args = []
            self._taken = 0
            return position
        self._taken += position - begin
        return self._hold(data, position)

    def _bulk_length(self, data: bytes, position: int, end: int) -> int:
        if data[position] != _DOLLAR:
            got = data[position : position + 1].translate(_PRINTABLE).decode("latin-1")
            raise ProtocolError(f"Protocol error: expected '$', got '{got}'")
        length = _integer(data[position + 1 : end])
        if length is None or not 0 <= length <= self.max_bulk:
            raise ProtocolError("Protocol error: invalid bulk length")
        if length > MAX_UNAUTHENTICATED_BULK_BYTES and not self.authenticated:
            raise ProtocolError("Protocol error: unauthenticated bulk length")
        return length


def _end_of_header(data: bytes, position: int, too_big: str) -> int:
    """Where the CR of the header is that begins at `position`, once the byte behind it is there too; else -1."""
    end = data.find(b"\r", position, position + MAX_LINE_BYTES + 1)
    if end < 0 and len(data) - position > MAX_LINE_BYTES:
        raise ProtocolError(too_big)
    return end if end + 2 <= len(data) else -1


def _integer(text: bytes) -> int | None:
    if _INTEGER(text) is None:
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None
