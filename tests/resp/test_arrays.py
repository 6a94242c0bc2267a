"""Arrays of many elements, whose ends hiredis finds: the same frames as the walk gives, whatever is in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp import arrays
from resp.arrays import begins_long, whole_arrays
from resp.errors import ProtocolError
from resp.frames import FrameScanner
from tests.resp.chunking import cut
from tests.resp.test_frames import FRAMES, NOT_RESP

VALUES = {name: frame for name, frame in FRAMES.items() if len(frame) < 200}
# By hiredis, or not as we do
UNREADABLE = {"status with a CR", "bulk error", "attribute", "two attributes", "attribute inside"}


def array(elements: list[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(elements), b"".join(elements))


many = st.lists(st.sampled_from(list(VALUES.values())), min_size=10, max_size=60).map(array)
pieces = st.lists(st.one_of(many, st.sampled_from(list(VALUES.values()))), min_size=1, max_size=8)


def test_hiredis_does_as_described() -> None:
    assert arrays.TOLD


def test_a_hiredis_that_keeps_what_it_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would tell wrong ends: it is found out, and nothing is asked of it."""
    monkeypatch.setattr(arrays, "_PAD", b"+short\r\n")
    assert not arrays._tells()
    monkeypatch.setattr(arrays, "TOLD", False)
    frame = array([b"$3\r\nabc\r\n"] * 40)
    assert whole_arrays(frame * 2, 0, []) == (0, False)
    assert FrameScanner().feed(frame * 2) == [frame, frame]


@given(pieces, st.lists(st.integers(0, 6000), max_size=6))
def test_any_chunking_gives_the_same_frames(frames: list[bytes], places: list[int]) -> None:
    scanner = FrameScanner()
    found = [frame for chunk in cut(b"".join(frames), places) for frame in scanner.feed(chunk)]
    assert (found, scanner.buffered) == (frames, 0)


@pytest.mark.parametrize("name", VALUES)
def test_every_type_inside(name: str) -> None:
    """Found in C unless hiredis cannot read it as we do; the frame is the same."""
    frame = array([b"$30\r\n%b\r\n" % (b"v" * 30)] * 40 + [VALUES[name]])
    found: list[bytes] = []
    position, incomplete = whole_arrays(frame + b":1\r\n", 0, found)
    if name in UNREADABLE or "streamed" in name:
        assert (position, incomplete, found) == (0, False, [])
    else:
        assert (position, incomplete, found) == (len(frame), False, [frame])
    assert FrameScanner().feed(frame + b":1\r\n") == [frame, b":1\r\n"]


@pytest.mark.parametrize("element", [b"$3\r\na|b\r\n", b"$3\r\n\n|b\r\n", b"$64\r\n%b\r\n" % (b"x" * 64), b":1\r\n"])
@pytest.mark.parametrize("count", [16, 99, 100, 1000, 20_000])
def test_any_length(element: bytes, count: int) -> None:
    frame = array([element] * count)
    data = b"+OK\r\n" + frame * 3 + b"$1\r\na\r\n"
    for size in (len(data), 16 * 1024, 100_000):
        scanner = FrameScanner()
        found = [frame for at in range(0, len(data), size) for frame in scanner.feed(data[at : at + size])]
        assert found == [b"+OK\r\n", frame, frame, frame, b"$1\r\na\r\n"]
        assert scanner.buffered == 0


@pytest.mark.parametrize("name", NOT_RESP)
def test_what_is_not_resp(name: str) -> None:
    scanner = FrameScanner()
    with pytest.raises(ProtocolError) as caught:
        for piece in (b"+OK\r\n" + array([b":1\r\n"] * 20 + [NOT_RESP[name]]), *[b"1"] * 10):  # an array may go on
            scanner.feed(piece)
    assert not caught.value.frames or caught.value.frames[0] == b"+OK\r\n"


def test_a_piece_is_not_looked_through_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an array that comes bit by bit the beginning is read again a few times only."""
    tries = 0

    def counted(*args: object) -> object:
        nonlocal tries
        tries += 1
        return whole_arrays(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("resp.frames.whole_arrays", counted)
    frame = array([b"$64\r\n%b\r\n" % (b"x" * 64)] * 50)
    scanner = FrameScanner()
    for _ in range(2):
        tries = 0
        assert [scanner.feed(frame[index : index + 10]) for index in range(0, len(frame), 10)][-1] == [frame]
        assert 1 < tries < 10


def test_incomplete_is_told_apart() -> None:
    frame = array([b"$64\r\n%b\r\n" % (b"x" * 64)] * 50)
    found: list[bytes] = []
    assert whole_arrays(frame[:-1], 0, found) == (0, True)
    assert whole_arrays(frame + frame[:-1], 0, found) == (len(frame), True)
    assert found == [frame]
    assert whole_arrays(b"*50\r\n*?\r\n", 0, found) == (0, False)


def test_few_elements_are_left_to_the_walk() -> None:
    for count in range(200):
        header = b"*%d\r\n:1\r\n" % count
        taken = header[:4] not in arrays.FEW and begins_long(header, 0) is not None
        assert taken == (count >= 16)
