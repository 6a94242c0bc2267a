"""What an operator is told: since when, once in the log, and in words that a stranger understands."""

from __future__ import annotations

import logging

import pytest
from rich.console import Console

from proxy.problems import CALM_SECONDS, Problems, duration
from proxy.show import status_table


class Wall:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


def test_since_when(wall: Wall) -> None:
    problems = Problems(wall)
    problems["disk"] = "the disk is full"
    wall.now += 75
    problems["disk"] = "the disk is fuller"
    assert problems.lines() == ["the disk is fuller (for 1 min 15 s)"]
    problems.pop("disk")
    problems.pop("disk", None)
    assert problems.lines() == []


def test_begin_and_end_are_logged_once(wall: Wall, caplog: pytest.LogCaptureFixture) -> None:
    """Also when it comes and goes with every try."""
    problems = Problems(wall)
    with caplog.at_level(logging.INFO, "crossfade"):
        for _ in range(10):
            problems["copies"] = "keys cannot be copied"
            wall.now += CALM_SECONDS / 2
            problems.pop("copies", None)
            wall.now += CALM_SECONDS / 2
            problems.settle()
        assert [record.getMessage() for record in caplog.records] == ["keys cannot be copied"]
        wall.now += CALM_SECONDS
        problems.settle()
        problems.settle()
    over = caplog.records[-1].getMessage()
    assert over.startswith("over, after 2 min") and "keys cannot be copied" in over
    assert len(caplog.records) == 2
    problems["copies"] = "again"
    assert problems.lines() == ["again (for 0 s)"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (86400 * 3 + 7200, "3 d 2 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    """A password hint, or a key's name, must not be taken for a style; nor end in a traceback."""
    side = {"url": "redis://h/0", "version": "redis 6.2", "connected": False, "problem": "[USER]", "since": 0.0}
    jobs = {"state": "idle", "copied": 0, "total": 0, "failed": 0, "selection": "", "yielding": False}
    counts = dict.fromkeys(("checked", "missing", "extra", "type", "ttl", "value", "unreadable"), 0)
    status = {
        "phase": "filling",
        "serving": "source",
        "epoch": 0,
        "source": side,
        "target": side,
        "mirror": {"queued": 0, "queued_bytes": 0, "lag_ms": 0.0},
        "dirty": 1,
        "copies": {"reasons": {"why [not]": 1}, "in_pages": 0, "pages": 0},
        "unmirrored": 0,
        "clients": 0,
        "waiting": 0,
        "pinned": 0,
        "backfill": jobs,
        "verify": {"state": "idle", **counts},
        "scrub": {"state": "off"},
        "flips": [],
        "finished": None,
        "unheld": {"commands": {}, "misunderstood": {}, "keys": 0, "examples": []},
        "problems": ["key [/red] of redis://[USER]:PASSWORD@HOST"],
    }
    console = Console(width=200)
    with console.capture() as captured:
        console.print(status_table(status))
    text = captured.get()
    assert "key [/red] of redis://[USER]:PASSWORD@HOST" in text and "why [not]" in text
