"""The file of findings: whole lines, once each, whatever was written when it was cut short."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from backfill.findings import Finding, FindingsError, FindingsFile

ONE, OTHER = (Finding(0, key, "value", "byte 2 differs") for key in (b"one", b"\xff\n\xc3\xa4"))


def test_a_line_says_what_the_key_is(tmp_path: Path) -> None:
    file = FindingsFile(tmp_path / "f")
    file.begin()
    file.tell([ONE, OTHER])
    file.close()
    first, second = map(json.loads, (tmp_path / "f").read_text().splitlines())
    assert first == {"db": 0, "key": "one", "key_hex": "6f6e65", "status": "value", "detail": "byte 2 differs"}
    assert (second["key"], bytes.fromhex(second["key_hex"])) == ("\\xff\nä", OTHER.key)
    assert file.size == (tmp_path / "f").stat().st_size


def test_what_was_told_after_the_checkpoint_is_told_again(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = FindingsFile(path)
    file.begin()
    file.tell([ONE])
    size = file.size
    file.tell([OTHER])
    file.close()
    path.write_bytes(path.read_bytes()[:-5])  # killed in the middle of a line
    file.go_on(size)
    assert path.stat().st_size == size
    file.tell([ONE])
    file.close()
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["one", "one"]


def test_a_file_that_is_not_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for content in (None, b"{}"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FindingsError, match=r"are not in .* any more: begin anew with --restart"):
            FindingsFile(path).go_on(3)
    with pytest.raises(FindingsError, match=r"cannot write the findings to .*: No such file"):
        FindingsFile(tmp_path / "no" / "file").begin()


def test_nothing_is_lost_when_all_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = FindingsFile(path)
    file.begin()
    assert file.put_aside() is None  # there is nothing
    file.empty()
    for number, name in enumerate(["f.before", "f.before.2", "f.before.3"]):
        file.tell([ONE] * (number + 1))
        size = file.size
        assert file.put_aside() == tmp_path / name
        assert path.stat().st_size == (tmp_path / name).stat().st_size == size > file.size == 0
        file.empty()
        assert path.stat().st_size == 0
    file.tell([OTHER])
    file.close()
    assert [len(found.read_text().splitlines()) for found in sorted(tmp_path.iterdir())] == [1, 1, 2, 3]


def test_a_full_disk(tmp_path: Path) -> None:
    """What could not be written whole does not count."""
    file = FindingsFile(Path("/dev/full"))
    file.begin()
    with pytest.raises(FindingsError, match="No space left"):
        file.tell([ONE])
    assert file.size == 0
    file.close()


def test_a_pipe_is_written_on(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = FindingsFile(path)
    file.go_on(1000)
    file.tell([ONE])
    file.sync()
    assert file.put_aside() is None
    file.empty()
    file.tell([ONE])
    file.close()
    assert len(os.read(reading, 1000).splitlines()) == 2
    os.close(reading)
