"""What the commands of the CLI have in common: exit codes, how one ends, a server's URL, and which keys are meant."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import click

from .direct.selection import TYPES
from .url import Url, UrlError, parse_url

EXIT_OK = 0  # done, and equal
EXIT_DIFFERENT = 1  # differences, or failed keys
EXIT_USAGE = 2
EXIT_CONNECT = 3
EXIT_REFUSED = 4  # by a gate

KINDS = [kind.decode() for kind in TYPES]

Body = Callable[..., None]  # of a command


class UrlType(click.ParamType[Url]):
    """A server URL."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Url:
        if isinstance(value, Url):
            return value
        try:
            return parse_url(value)
        except UrlError as problem:
            self.fail(problem.text, param, ctx)


class SizeType(click.ParamType[float]):
    """Bytes, with an optional unit."""

    name = "BYTES"
    UNITS: ClassVar = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|[kmg]i?)b?(?:/s)?", str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is not a number of bytes: write 500KB, 20MB or 1GB", param, ctx)
        return float(found[1]) * self.UNITS[found[2]]


def state_dir(what: str) -> Callable[[Body], Body]:
    """The directory of everything that outlives a process; `what` a command looks for in it."""
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("crossfade-state"),
        envvar="CROSSFADE_STATE_DIR",
        show_default=True,
        help=what,
    )


class Failed(Exception):
    """The command ends with this line and this exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def fail(text: str, code: int) -> NoReturn:
    """One line, and the end."""
    click.echo(f"crossfade: {text}", err=True)
    sys.exit(code)


def source_and_target(command: Body) -> Body:
    """The two servers of a migration, as options; from the environment, passwords stay off the command line."""

    def server(name: str, text: str) -> Callable[[Body], Body]:
        return click.option(f"--{name}", type=UrlType(), required=True, envvar=f"CROSSFADE_{name.upper()}", help=text)

    return server("source", "The server to leave.")(server("target", "The server to move to.")(command))


def choosing_keys(*, types: Sequence[str] = KINDS, more: str = "") -> Callable[[Body], Body]:
    """The options that choose keys, each a tuple: match, exclude, types, dbs, slots. `types`: what --type takes;
    `more`: what else its help says."""
    only = f"Only keys of this type (may be repeated){more}."
    options = [
        click.option("--match", multiple=True, metavar="PATTERN", help="Only keys like this (may be repeated)."),
        click.option("--exclude", multiple=True, metavar="PATTERN", help="No keys like this (may be repeated)."),
        click.option("--type", "types", type=click.Choice(types), multiple=True, help=only),
        click.option("--db", "dbs", type=click.IntRange(0), multiple=True, help="Only this db (may be repeated)."),
        click.option("--slots", multiple=True, metavar="A-B", help="Only keys of these slots (may be repeated)."),
    ]
    return lambda command: reduce(lambda body, option: option(body), reversed(options), command)
