from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp.commands import CommandParser
from resp.encode import encode
from resp.pipelines import read_pipeline
from tests.resp.test_commands import BAD, GOOD, INCOMPLETE, PIECES

SET = encode([b"SET", b"key", b"x" * 64])
DEEP = SET * 40

# What hiredis takes and servers refuse, or what would make the sizes of two elements wrong in opposite directions.
ODD_ELEMENTS = [
    b"+ab\r\n",
    b"=6\r\ntxt:ab\r\n",
    b"(12\r\n",
    b"*1\r\n$1\r\na\r\n",
    b"*0\r\n",
    b"~1\r\n:1\r\n",
    b"%0\r\n",
    b"#t\r\n",
]
ODD_ELEMENTS += [
    b":1\r\n",
    b",1.5\r\n",
    b"_\r\n",
    b"-ERR\r\n",
    b">1\r\n:1\r\n",
    b"$-1\r\n",
    b"%1\r\n*0\r\n:1\r\n",
    b"$1\r\na\r\n",
]


def read(data: bytes) -> tuple[list[list[bytes]], int]:
    commands: list[list[bytes]] = []
    return commands, read_pipeline(data, commands)


def test_complete_commands_are_read_and_the_cut_one_is_left() -> None:
    for length in range(len(SET)):
        assert read(DEEP + SET[:length]) == ([[b"SET", b"key", b"x" * 64]] * 40, len(DEEP))


@pytest.mark.parametrize("odd", ODD_ELEMENTS[:-1])
def test_what_only_hiredis_takes_is_left(odd: bytes) -> None:
    commands, length = read(DEEP + b"*2\r\n$1\r\na\r\n" + odd)
    assert (commands, length) == ([], 0)


@given(st.lists(st.lists(st.sampled_from(ODD_ELEMENTS), min_size=1, max_size=8), max_size=4))
def test_errors_of_size_do_not_cancel_out(commands: list[list[bytes]]) -> None:
    data = b"".join(b"*%d\r\n" % len(elements) + b"".join(elements) for elements in commands)
    found, length = read(data)
    assert data.startswith(b"".join(map(encode, found)))
    assert length == len(b"".join(map(encode, found)))


@pytest.mark.parametrize("type_", [b"*", b"~", b">", b"|"])
@pytest.mark.parametrize("before", [b"", DEEP, DEEP + b"*1\r\n", DEEP + b"*1\r\n$0\r\nab"])
def test_a_huge_count_is_never_allocated(before: bytes, type_: bytes) -> None:
    began = time.process_time()
    assert read(before + type_ + b"2000000000\r\n") == ([], 0)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("name", [*GOOD, *BAD, *INCOMPLETE])
def test_every_case_at_the_end_of_a_deep_pipeline(name: str) -> None:
    data = GOOD[name][0] if name in GOOD else BAD[name][0] if name in BAD else INCOMPLETE[name]
    same_as_in_small_chunks(DEEP + data + DEEP)


@given(st.lists(st.sampled_from([*PIECES, *ODD_ELEMENTS, DEEP]), max_size=20).map(b"".join))
def test_anything_behind_a_deep_pipeline(data: bytes) -> None:
    same_as_in_small_chunks(DEEP + data)


def same_as_in_small_chunks(data: bytes) -> None:
    at_once, in_pieces = CommandParser(), CommandParser()
    commands = at_once.feed(data)
    assert commands == [
        command for index in range(0, len(data), 500) for command in in_pieces.feed(data[index : index + 500])
    ]
    assert str(at_once.error) == str(in_pieces.error)
    assert at_once.buffered == in_pieces.buffered
    assert all(type(arg) is bytes for command in commands for arg in command)
