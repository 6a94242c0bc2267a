from __future__ import annotations

import pytest

from resp.numbers import integer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0),
        (b"15", 15),
        (b"-1", -1),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"9223372036854775808", None),
        (b"", None),
        (b"-", None),
        (b"+1", None),
        (b" 1", None),
        (b"1_0", None),
        (b"01", None),
        (b"-0", None),
        (b"1.0", None),
        (b"9" * 5000, None),
    ],
)
def test_only_what_redis_takes_for_an_integer(text: bytes, value: int | None) -> None:
    assert integer(text) == value
