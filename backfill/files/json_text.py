"""Owns reading JSON values one after the other from a file of any size, with the line of each. Pure.

Only what is needed is held: a value that is asked for, and a buffer. Numbers stay as they were written (`Number`), as
a double would change them. Text outside of the values asked for is read with `peek` and `take`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

CHUNK_CHARS = 64 * 1024
_BLANK = re.compile(r"[ \t\r\n]*")
_NEAR_END = 16  # an error so close to the end of the buffer may only mean that the value goes on


class Number(str):
    """A number as it stands in the file."""

    __slots__ = ()


class JsonError(Exception):
    """Not JSON. `line` is where."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


_decode = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number).raw_decode


class JsonText:
    """`peek()` tells what comes; `value()` takes a whole value, `take()` one character of punctuation."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._buffer = ""
        self._at = 0
        self._line, self._counted = 1, 0  # the line at buffer position `_counted`
        self._ended = False

    def __repr__(self) -> str:
        return f"<JsonText line {self.line} {self._buffer[self._at : self._at + 20]!r}>"

    @property
    def line(self) -> int:
        """The line of what comes next."""
        self._line += self._buffer.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """The next character that is not blank, "" at the end. Errors: JsonError."""
        while True:
            found = _BLANK.match(self._buffer, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._fill():
                return ""

    def take(self, *expected: str) -> str:
        """The next character, which must be one of `expected`. Errors: JsonError."""
        char = self.peek()
        if char not in expected or not char:
            found = f"{ascii(char)[1:-1]} stands" if char else "the file ends"
            raise JsonError(self.line, f"{found} where {' or '.join(expected)} is expected")
        self._at += 1
        return char

    def value(self) -> Any:
        """The next value, whole. Errors: JsonError."""
        _, value = self._value(limit=None)
        return value

    def small(self, limit: int) -> tuple[bool, Any]:
        """Whether the next value is complete within `limit` characters, and it. Errors: JsonError."""
        return self._value(limit)

    def _value(self, limit: int | None) -> tuple[bool, Any]:
        self.peek()
        while True:
            try:
                value, end = _decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if not self._may_go_on(error):
                    line = self.line + self._buffer.count("\n", self._at, error.pos)
                    raise JsonError(line, f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}") from None
            except RecursionError:
                raise JsonError(self.line, "not JSON that can be read: nested too deeply") from None
            else:
                if end < len(self._buffer) or self._ended:
                    self._at = end
                    return True, value
            if limit is not None and len(self._buffer) - self._at >= limit:
                return False, None
            self._fill()

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        if self._ended:
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._buffer) - _NEAR_END

    def skip_line(self) -> None:
        """Go on behind the next line end. Errors: JsonError."""
        while (end := self._buffer.find("\n", self._at)) < 0:
            self._at = len(self._buffer)
            if not self._fill():
                return
        self._at = end + 1

    def _fill(self) -> bool:
        """More text behind what is left; False at the end. It at least doubles, so that a huge value is decoded a few
        times, not a thousand."""
        if self._ended:
            return False
        self._line = self.line
        parts = [self._buffer[self._at :]]
        self._at = self._counted = 0
        wanted = max(CHUNK_CHARS, len(parts[0]))
        while wanted > 0 and not self._ended:
            data = next(self._chunks, b"")
            self._ended = not data
            try:
                parts.append(self._decoder.decode(data, final=self._ended))
            except UnicodeDecodeError:
                line = self._line + sum(part.count("\n") for part in parts) + data.count(b"\n") // 2
                raise JsonError(line, "not UTF-8 (about here)") from None
            wanted -= len(parts[-1])
        self._buffer = "".join(parts)
        return len(self._buffer) > len(parts[0])
