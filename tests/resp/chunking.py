"""The ways in which a network may cut one stream of bytes, for tests of anything that feeds on bytes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import strategies as st


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` cut at some offsets (any order, repeated ones give empty chunks)."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and in two at every offset (every one near the ends of long data)."""
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    places = range(len(data) + 1)
    for place in places if len(data) < 300 else [*places[:100], *places[-100:]]:
        yield [data[:place], data[place:]]


def cut_places(most: int = 8) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 400), max_size=most)
