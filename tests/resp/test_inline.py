from __future__ import annotations

import pytest

from resp.errors import ProtocolError
from resp.inline import split_args


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b" \t\v\f ", []),
        (b"GET k", [b"GET", b"k"]),
        (b"  GET\t\tk  ", [b"GET", b"k"]),
        (b"a\vb\fc", [b"a\vb\fc"]),
        (b"\"\" ''", [b"", b""]),
        (b'"a b" c', [b"a b", b"c"]),
        (b'a"b c"', [b"ab c"]),
        (b"a'b c'", [b"ab c"]),
        (b"\"a'b\" 'c\"d'", [b"a'b", b'c"d']),
        (rb'"\x41\n\r\t\b\a\"\\\q"', [b'A\n\r\t\b\a"\\q']),
        (rb'"\xzz\x4"', [b"xzzx4"]),
        (rb"'a\'b\n\\''", [rb"a'b\n\'"]),
        (rb"a\nb", [rb"a\nb"]),
        (b"\xff\xfe", [b"\xff\xfe"]),
    ],
)
def test_words(line: bytes, words: list[bytes]) -> None:
    assert split_args(line) == words


@pytest.mark.parametrize(
    "line", [b'"', b"'", b'a "b', b"a 'b", b'"a"b', b"'a'b", b"\"a\"'b'", b'a"', rb'"a\"', rb"'a\'", b'"a\\']
)
def test_unbalanced_quotes(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="Protocol error: unbalanced quotes in request"):
        split_args(line)
