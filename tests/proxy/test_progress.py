"""What is settled of a backfill, and the file that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.progress import FILES, Checkpoint, Pages, Position, forget, load

A, B, C = (0, b"a"), (0, b"b"), (0, b"c")
ONE, TWO, THREE = (Position(0, cursor) for cursor in ("1", "2", "3"))


def test_a_page_is_settled_when_all_its_keys_and_all_pages_before_it_are() -> None:
    pages = Pages(Position())
    assert pages.found(A) and pages.found(B)
    pages.end(ONE)
    assert pages.found(C)
    pages.end(TWO)
    assert (pages.settled, len(pages)) == (Position(), 3)
    assert pages.copied([C]) and pages.settled == Position()
    assert pages.copied([A]) and pages.settled == Position()
    assert pages.copied([B]) and pages.settled == TWO
    assert not pages.copied([B]) and len(pages) == 0


def test_a_page_that_is_being_taken_is_not_settled() -> None:
    pages = Pages(Position())
    pages.found(A)
    pages.copied([A])
    assert pages.settled == Position()
    pages.end(ONE)
    assert pages.settled == ONE
    pages.end(TWO)  # a page without keys
    assert pages.settled == TWO


def test_a_key_that_is_found_twice_waits_once() -> None:
    pages = Pages(Position())
    assert pages.found(A)
    pages.end(ONE)
    assert not pages.found(A)
    pages.end(TWO)
    assert pages.places() == [A]
    pages.copied([A])
    assert pages.settled == TWO
    assert pages.found(A)  # copied, and found once more: copied again
    pages.end(THREE)
    assert pages.settled == TWO


def test_a_page_that_is_copied_elsewhere_is_settled_when_it_is_closed() -> None:
    """And when those of its keys that were added are copied."""
    pages = Pages(Position())
    one, two = pages.open(ONE), pages.open(TWO)
    pages.close(two)
    assert pages.settled == Position()
    pages.add(one, A)
    pages.add(one, A)
    pages.close(one)
    assert (pages.settled, len(pages)) == (Position(), 1)
    assert pages.copied([A]) == 1 and pages.settled == TWO


def checkpoint(**changes: object) -> Checkpoint:
    fields = {"plan": {"match": []}, "run_ids": ("s", "m"), "epoch": 2, "position": Position(1, "7", (0,), 5)}
    return Checkpoint(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, partial=False) is None
    checkpoint().save(tmp_path, False)
    assert load(tmp_path, partial=False) == checkpoint()
    assert load(tmp_path, partial=True) is None
    forget(tmp_path, partial=True)
    forget(tmp_path, partial=False)
    forget(tmp_path, partial=False)
    assert load(tmp_path, partial=False) is None


@pytest.mark.parametrize("change", [{"plan": {}}, {"run_ids": ("s", "x")}, {"run_ids": ("x", "m")}, {"epoch": 3}])
def test_it_belongs_to_one_plan_one_process_of_each_server_and_one_epoch(change: dict[str, object]) -> None:
    assert checkpoint().trusted(checkpoint(position=Position()))
    assert not checkpoint().trusted(checkpoint(**change))


def test_servers_that_do_not_tell_their_process_are_not_trusted() -> None:
    assert not checkpoint(run_ids=("", "m")).trusted(checkpoint(run_ids=("", "m")))


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"format": 1, "position": {}}', b"\xff", b'{"format": 2}'])
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILES[False]).write_bytes(damage)
    assert load(tmp_path, partial=False) is None
