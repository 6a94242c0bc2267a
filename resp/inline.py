"""Inline commands: a line of words, as typed into telnet.

Owns: Redis' quoting (sdssplitargs). Refuses to know: where the line ends, and how long it may be.
"""

from __future__ import annotations

import re

from resp.errors import ProtocolError

_GAP = re.compile(rb"\s*")
# Something plain, then perhaps something quoted, which ends the word. Possessive, so an unclosed quote never matches.
_WORD = re.compile(
    rb"""([^ \t\r\n"']*+)  (?: " ((?:\\.|[^"\\])*+) " (?!\S)  |  ' ((?:\\'|[^'])*+) ' (?!\S)  |  (?!["']) )""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_NAMED_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_args(line: bytes) -> list[bytes]:
    r"""The words of a line.

    "..." knows \n \r \t \b \a \xHH and takes any other escaped byte as it is; '...' knows only \'. A quote may open in
    the middle of a word and must end it: `a"b c"` is one word. Raises ProtocolError for unbalanced quotes.
    """
    words = []
    position = _end_of_gap(line, 0)
    while position < len(line):
        word = _WORD.match(line, position)
        if word is None:
            raise ProtocolError("Protocol error: unbalanced quotes in request")
        plain, double, single = word.groups(b"")
        words.append(plain + _ESCAPE.sub(_unescape, double) + single.replace(b"\\'", b"'"))
        position = _end_of_gap(line, word.end())
    return words


def _end_of_gap(line: bytes, position: int) -> int:
    gap = _GAP.match(line, position)
    return gap.end() if gap else position


def _unescape(escape: re.Match[bytes]) -> bytes:
    digits, byte = escape.groups()
    return bytes.fromhex(digits.decode()) if digits else _NAMED_ESCAPES.get(byte, byte)
