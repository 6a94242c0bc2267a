"""What the documents tell people to type exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from crossfade import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#:]+)\)")
MODULE = re.compile(r"python -m ([a-z_.]+)")
CODE = re.compile(r"^ {4}(crossfade .*)$|`(crossfade [a-z][^`]*)`", re.MULTILINE)


def commands() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for match in CODE.finditer(path.read_text()):
            yield path.name, " ".join((match[1] or match[2]).split())


def test_there_are_some() -> None:
    assert len(list(commands())) > 40


@pytest.mark.parametrize(("document", "line"), sorted(set(commands())))
def test_it_can_be_typed(document: str, line: str) -> None:
    """The subcommand and each of its options; what follows an option is not looked at."""
    words = shlex.split(line.replace("…", ""), comments=True)[1:]
    assert words and words[0] in main.commands, f"there is no `{line}`"
    _, command, _ = main.resolve_command(click.Context(main), words)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts if isinstance(parameter, click.Option)}
    unknown = {word for word in words[1:] if word.startswith("--")} - known
    assert not unknown, f"`crossfade {words[0]}` has no {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_it_points_to_is_there(path: Path) -> None:
    """Links to files, and modules that can be run."""
    text = path.read_text()
    files = [path.parent / link for link in LINK.findall(text)]
    files += [ROOT / (name.rstrip(".").replace(".", "/") + ".py") for name in MODULE.findall(text) if name != "bench"]
    assert [str(file) for file in files if not file.exists()] == []
