"""The position moves only over what is settled; a checkpoint gives it back, to the same copy alone."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.direct.checkpoint import Checkpoint, CheckpointError, identity
from backfill.direct.selection import Selection
from backfill.direct.tally import Page, Position, Tally
from backfill.url import parse_url


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.randoms())
def test_position(counts: list[int], rng: Random) -> None:
    """However settling jumps about, the position is behind the first page that is not settled."""
    tally = Tally()
    pages = [Page(0, b"%d" % (index + 1), count, count) for index, count in enumerate(counts)]
    pages[-1].cursor = b"0"
    tally.pages.extend(pages)
    tally.advance()
    steps = [index for index, count in enumerate(counts) for _ in range(count)]
    rng.shuffle(steps)
    for index in steps:
        first = next(i for i, page in enumerate(pages) if page.pending > 0)
        assert tally.position.cursor == (b"%d" % first if first else b"0")
        assert tally.position.scanned == sum(counts[:first])
        if rng.random() < 0.5:
            tally.settled(0, [b"k"], pages[index])
        else:
            tally.fail((0, b"k"), "why", pages[index])
    assert tally.position.done == {0} and not tally.pages


WHICH = identity(parse_url("redis://u:secret@h/0"), parse_url("redis://:secret@t/0"), Selection(), "snapshot")


def test_a_checkpoint(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path / "new" / "here.json", WHICH)
    file.lock()
    assert file.load() is None
    tally = Tally(copied=7, failed={(3, b"\xff"): "why"}, position=Position(2, b"17", {0, 1}, 99))
    file.save(tally, ("a", "b"), [5], 1234)
    saved = file.load()
    assert saved is not None
    assert (saved.position, saved.run_ids, saved.client_ids) == (tally.position, ("a", "b"), [5])
    assert (saved.copied, saved.failed, saved.keys) == (7, tally.failed, 1234)
    assert "secret" not in file.path.read_text() and file.path.stat().st_mode & 0o77 == 0
    file.remove()
    file.unlock()
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    Checkpoint(path, WHICH).save(Tally(position=Position(2, b"17")), ("a", "b"), [], 0)
    live = Checkpoint(path, {**WHICH, "mode": "live"}).load()
    assert live is not None and live.position == Position()  # its cursor means nothing to another mode
    with pytest.raises(CheckpointError, match="is of another copy"):
        Checkpoint(path, {**WHICH, "source": "redis://elsewhere"}).load()
    for text in ("", "{}", "[1]", path.read_text().replace('"format": 1', '"format": 0')):
        path.write_text(text)
        with pytest.raises(CheckpointError, match="is not a checkpoint of this version"):
            Checkpoint(path, WHICH).load()


def test_locked(tmp_path: Path) -> None:
    one, other = Checkpoint(tmp_path / "x.json", WHICH), Checkpoint(tmp_path / "x.json", WHICH)
    one.lock()
    with pytest.raises(CheckpointError, match="is running already"):
        other.lock()
    one.unlock()
    other.lock()
    other.unlock()
