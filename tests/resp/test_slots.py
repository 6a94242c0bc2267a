from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp.slots import SLOTS, key_slot


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"", 0),
        (b"123456789", 0x31C3),  # the CRC's check value
        (b"foo", 12182),
        (b"bar", 5061),
        (b"{foo}bar", 12182),
        (b"bar{foo}{bar}", 12182),
    ],
)
def test_slot(key: bytes, slot: int) -> None:
    assert key_slot(key) == slot


def test_only_the_first_closed_and_filled_tag_counts() -> None:
    assert key_slot(b"foo{}{bar}") not in {key_slot(b"bar"), key_slot(b"")}
    assert key_slot(b"foo{{bar}}zap") == key_slot(b"{bar")
    assert key_slot(b"a}{b}") == key_slot(b"b")


@given(st.binary(), st.binary(min_size=1).filter(lambda tag: b"}" not in tag), st.binary())
def test_a_tag_decides(before: bytes, tag: bytes, behind: bytes) -> None:
    before = before.replace(b"{", b"")
    assert key_slot(before + b"{" + tag + b"}" + behind) == key_slot(tag)
    assert 0 <= key_slot(before) < SLOTS
