"""INFO: the serving side's own answer, with a section about the proxy at its end. Pure.

Owns which calls get the section (those that ask for everything, or for it) and the form of the text.
"""

from __future__ import annotations

from collections.abc import Mapping

SECTION = b"crossfade"
WHOLE = frozenset([b"all", b"default", b"everything", SECTION])


def wants_section(args: list[bytes]) -> bool:
    """Whether this INFO asks for a whole answer, or for our section."""
    return len(args) == 1 or any(arg.lower() in WHOLE for arg in args[1:])


def section(values: Mapping[str, object]) -> bytes:
    """Our section, as a server writes one."""
    lines = [b"# Crossfade", *(f"crossfade_{name}:{value}".encode() for name, value in values.items())]
    return b"".join(line + b"\r\n" for line in lines)


def with_section(frame: bytes, text: bytes) -> bytes:
    """An INFO reply (bulk string, or verbatim string in RESP3) with `text` at its end; anything else as it is."""
    head, _, body = frame.partition(b"\r\n")
    if head[:1] not in (b"$", b"=") or head[1:2] == b"-":
        return frame
    content = body[:-2]
    separator = b"\r\n" if content and not content.endswith(b"txt:") else b""
    whole = content + separator + text
    return b"%b%d\r\n%b\r\n" % (head[:1], len(whole), whole)
