"""The root of the command line: commands that are imported only when they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from crossfade import COMMANDS, Later, main

ROOT = Path(__file__).parent.parent
LONG = 1000  # characters: nothing is cut off


@pytest.mark.parametrize("later", COMMANDS, ids=str)
def test_the_summary_is_that_of_the_command(later: Later) -> None:
    command = later.load()
    assert command.name == later.name
    assert command.get_short_help_str(LONG) == later.get_short_help_str(LONG)


@pytest.mark.parametrize("name", main.commands)
def test_the_help_is_that_of_the_command(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0 and "\nOptions:\n" in result.output
    assert f"Usage: main {name} " in result.output
    assert "-h, --help" in result.output  # as the root has it


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["--nothing"], ["statsu"]], ids=" ".join)
def test_nothing_is_imported_for_the_root(words: list[str]) -> None:
    """What an operator's shell, or a completion, waits for."""
    code = f"import crossfade, sys\ntry: crossfade.main({words})\nfinally: print([*sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == (2 if "Error: No such" in run.stderr else 0), run.stderr
    loaded = set(run.stdout.splitlines()[-1][2:-2].split("', '"))
    assert "click" in loaded
    assert not loaded & {"trio", "rich", "backfill", "proxy", "resp"}


def test_a_word_that_is_nearly_a_command() -> None:
    result = CliRunner().invoke(main, ["statsu"])
    assert result.exit_code == 2 and "No such command 'statsu'" in result.output
