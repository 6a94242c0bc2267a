from __future__ import annotations

import pytest

from proxy.info import section, wants_section, with_section

TEXT = section({"phase": "in-sync", "epoch": 1})


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        ("INFO", True),
        ("INFO all", True),
        ("INFO Everything", True),
        ("INFO crossfade", True),
        ("INFO server", False),
        ("INFO server crossfade", True),
    ],
)
def test_who_gets_the_section(call: str, wanted: bool) -> None:
    assert wants_section(call.encode().split()) is wanted


def test_the_section_reads_like_a_servers() -> None:
    assert TEXT == b"# Crossfade\r\ncrossfade_phase:in-sync\r\ncrossfade_epoch:1\r\n"


def test_it_stands_behind_the_servers_own() -> None:
    assert with_section(b"$7\r\n# A\r\nb\r\n", TEXT).endswith(b"\r\n" + TEXT + b"\r\n")
    frame = with_section(b"$6\r\n# A\r\n\r\n\r\n", b"x")
    assert frame.startswith(b"$")
    length, _, rest = frame[1:].partition(b"\r\n")
    assert len(rest) == int(length) + 2


def test_verbatim_strings_of_resp3_and_empty_answers() -> None:
    assert with_section(b"=4\r\ntxt:\r\n", b"x") == b"=5\r\ntxt:x\r\n"
    assert with_section(b"$0\r\n\r\n", b"x") == b"$1\r\nx\r\n"


@pytest.mark.parametrize("frame", [b"-ERR no\r\n", b"$-1\r\n", b"_\r\n"])
def test_anything_else_stays_as_it_is(frame: bytes) -> None:
    assert with_section(frame, TEXT) == frame
