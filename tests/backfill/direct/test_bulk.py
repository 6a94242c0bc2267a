"""The quick way of the codec says what the codec says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import hiredis
from hypothesis import example, given
from hypothesis import strategies as st

from backfill.codec import Form, parse, read_commands, write_commands
from backfill.direct import bulk
from resp.encode import encode

KEYS = st.lists(st.binary(max_size=12), min_size=1, max_size=8)
NOW = [b"1700000000", b"123456"]


def decoded(data: bytes) -> list[list[bytes]]:
    reader = hiredis.Reader()
    reader.feed(data)
    return list(iter(reader.gets, False))


@given(KEYS, st.booleans())
def test_reads(keys: list[bytes], absolute: bool) -> None:
    data, count = bulk.read_block(bulk.encoded(keys), absolute=absolute)
    commands = decoded(data)
    assert len(commands) == count
    known = frozenset([b"PEXPIRETIME"]) if absolute else frozenset[bytes]()
    single = [command for key in keys for command in read_commands(key, Form.DUMP, known=known)]
    clock = [[b"TIME"]]
    assert sorted(commands[1:-1] + clock * absolute) == sorted([c for c in single if c != clock[0]] + clock)
    assert (commands[0], commands[-1]) == ([b"MULTI"], [b"EXEC"])


@example([(b"a", -1, b"x" * 511), (b"b", 0, None), (b"c", 5000, b"x" * 512), (b"d", -1, b"x" * 5000)], True, 0)
@given(
    st.lists(
        st.tuples(st.binary(max_size=9), st.sampled_from([-1, 0, 5000]), st.none() | st.binary(min_size=1)), min_size=1
    ),
    st.booleans(),
    st.integers(-9999, 9999),
)
def test_writes(rows: Sequence[tuple[bytes, int, bytes | None]], absolute: bool, shift: int) -> None:
    """What is restored is what the codec would have restored, from the same replies."""
    keys, lefts, payloads = ([row[index] for row in rows] for index in range(3))
    now = 1700000000123
    deadlines = [now + left if left >= 0 else -1 for left in lefts]  # type: ignore[operator]
    block = [*deadlines, *payloads] if absolute else [NOW, *lefts, *payloads]
    outcome = bulk.parse_block(len(rows), [b"OK", block], absolute=absolute)
    assert isinstance(outcome, tuple)
    sent = decoded(bulk.restores(bulk.encoded(keys), *outcome, shift))  # type: ignore[arg-type]
    expected = []
    for key, left, deadline, payload in zip(keys, lefts, deadlines, payloads, strict=True):
        assert isinstance(key, bytes)
        state = parse(key, Form.DUMP, [deadline, NOW, payload] if absolute else [NOW, left, payload])
        expected += write_commands(state, shift_ms=shift, target=frozenset(), version=("redis", 7, 0))  # type: ignore[arg-type]
    assert sent == expected


@given(
    st.lists(st.tuples(st.binary(max_size=9), st.sampled_from([b"set", b"hash", b"none"])), min_size=1), st.booleans()
)
def test_what_is_of_another_type_is_as_good_as_none(rows: list[tuple[bytes, bytes]], absolute: bool) -> None:
    keys, kinds = ([row[index] for row in rows] for index in range(2))
    data, count = bulk.read_block(bulk.encoded(keys), absolute=absolute, types=True)
    commands = decoded(data)
    assert len(commands) == count and commands[-1 - len(keys) : -1] == [[b"TYPE", key] for key in keys]
    payloads = [None if kind == b"none" else b"x" for kind in kinds]
    block = [*([] if absolute else [NOW]), *[-1] * len(keys), *payloads, *kinds]
    outcome = bulk.parse_block(len(keys), [block], absolute=absolute, types=frozenset([b"hash"]))
    assert outcome == ([-1] * len(keys), [b"x" if kind == b"hash" else None for kind in kinds])


@given(KEYS, st.booleans())
def test_reads_apart(keys: list[bytes], absolute: bool) -> None:
    """The same commands without their MULTI, and a second look at the clock behind the last PTTL."""
    (block, _), (data, count) = (
        read(bulk.encoded(keys), absolute=absolute) for read in (bulk.read_block, bulk.read_apart)
    )
    commands = decoded(data)
    assert len(commands) == count
    if not absolute:
        assert commands.pop(len(keys) + 1) == [b"TIME"]
    assert [[b"MULTI"], *commands, [b"EXEC"]] == decoded(block)


def at(ms: int) -> list[bytes]:
    return [b"%d" % (ms // 1000), b"%d" % (ms % 1000 * 1000)]


def test_what_was_read_apart() -> None:
    assert bulk.parse_apart(2, [7, -1, b"x", None], absolute=True) == ([7, -1], [b"x", None])
    near = [at(1000), 500, -1, at(1000 + bulk.HELD_UP_MS), b"x", b"y"]
    assert bulk.parse_apart(2, near, absolute=False) == ([1500 + bulk.HELD_UP_MS, -1], [b"x", b"y"])
    far = [at(1000), 500, -1, at(1001 + bulk.HELD_UP_MS), b"x", b"y"]
    assert bulk.parse_apart(2, far, absolute=False) is None
    far[1] = -1  # no deadline, nothing to be told
    assert bulk.parse_apart(2, far, absolute=False) == ([-1, -1], [b"x", b"y"])
    assert bulk.parse_apart(1, [-1, hiredis.ReplyError("NOPERM")], absolute=True) is None


def test_a_refusal_is_told() -> None:
    error = hiredis.ReplyError("NOPERM no DUMP for you")
    replies = [b"OK", b"QUEUED", error, hiredis.ReplyError("EXECABORT")]
    assert bulk.parse_block(1, replies, absolute=True) is error
    assert bulk.parse_block(1, [b"OK", [1, error]], absolute=True) is error


@given(st.lists(st.integers(0, 100), min_size=1), st.integers(1, 9), st.integers(1, 300))
def test_cuts(sizes: list[int], most: int, most_bytes: int) -> None:
    ends = bulk.cut(sizes, most, most_bytes)
    parts = [sizes[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert list(chain(*parts)) == sizes and all(parts)
    assert all(len(part) <= most and sum(part[:-1]) < most_bytes for part in parts)


def test_encoding() -> None:
    keys = [b"", b"a\r\n", b"x" * 100]
    data, count = bulk.probe(bulk.encoded(keys), types=True)
    assert data == b"".join(
        [encode([b"MEMORY", b"USAGE", key]) for key in keys] + [encode([b"TYPE", key]) for key in keys]
    )
    assert count == 6
