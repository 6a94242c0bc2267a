"""What survives a restart; what happens when it cannot be written."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from proxy.roles import Name
from proxy.state import STATE_FILE, StateDir, StateError


def opened(path: Path, source: str = "redis://a", target: str = "redis://b") -> StateDir:
    state = StateDir(path)
    state.open(source, target)
    return state


def test_a_new_directory(tmp_path: Path) -> None:
    with opened(tmp_path / "state") as state:
        assert state.durable.serving is Name.SOURCE
        assert state.durable.instance
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_saved_and_loaded(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.save(serving=Name.TARGET, epoch=3, backfilled=True)
        before = state.durable
    with opened(tmp_path) as state:
        assert state.durable == before


def test_one_proxy_a_directory(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(StateError, match="another proxy is running"):
        opened(tmp_path)
    opened(tmp_path).close()


def test_a_directory_belongs_to_its_servers(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.save()
    with pytest.raises(StateError, match="belongs to redis://a -> redis://b"):
        opened(tmp_path, "redis://a", "redis://c")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": 99}', '{"format": 1, "serving": "moon"}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(StateError, match="cannot be read"):
        opened(tmp_path)


def test_a_field_of_the_future_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.save()
    document = json.loads((tmp_path / STATE_FILE).read_text())
    (tmp_path / STATE_FILE).write_text(json.dumps(document | {"new": 1}))
    with pytest.raises(StateError, match="cannot be read"):
        opened(tmp_path)


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="too long"):
        opened(tmp_path / ("x" * 100))


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_what_could_not_be_written_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """A flip whose epoch could not be saved has not happened; the next save must not make it so."""

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with opened(tmp_path) as state:
        state.save()
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, full)
            with pytest.raises(OSError):
                state.save(serving=Name.TARGET, epoch=1)
        assert state.durable.serving is Name.SOURCE
        state.save(clean=False)
    with opened(tmp_path) as state:
        assert (state.durable.serving, state.durable.epoch) == (Name.SOURCE, 0)
