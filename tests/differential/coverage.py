"""Which of a server's commands, subcommands and options the corpus and the conversations use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.differential import calls_data, calls_server, transcripts
from tests.differential.conversations import parse
from tests.differential.corpus import command_name, templates, words
from tests.servers import Server

TABLES: dict[str, str] = {
    name: text
    for module in (calls_server, calls_data)
    for name, text in vars(module).items()
    if name.isupper() and isinstance(text, str)
}

# Options that no call has, and why.
UNUSED: dict[str, str] = {
    "CLIENT KILL": "its filters are counted with those of CLIENT LIST: the proxy's own clients have few of these traits",
    "CLIENT LIST": "its filters: see CLIENT KILL",
}


def _commands(text: str) -> Iterator[list[str]]:
    """Every alternative once, not every combination: enough to see what is there."""
    for line in templates(text):
        for part in line.removeprefix("~").split(" ; "):
            yield words(re.sub(r"[\[\]|]", " ", part))


@cache
def used() -> dict[str, frozenset[str]]:
    """The words that stand behind each command."""
    found: dict[str, set[str]] = {}
    lines = [line for text in TABLES.values() for line in _commands(text)]
    for text in transcripts.ALL.values():
        for conversation in parse(text):
            said = [line.partition(":")[2] for line in conversation.lines]
            lines += [words(part) for text in said for part in text.split(" ; ")]
    for name, *options in filter(None, lines):
        found.setdefault(name.upper(), set()).update(option.upper() for option in options)
    return {name: frozenset(options) for name, options in found.items()}


@dataclass(frozen=True, slots=True)
class Coverage:
    version: str
    commands: int
    missing: tuple[str, ...]
    options: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        left_out = [name for name in self.missing if name in calls_server.UNTESTED]
        text = (
            f"{self.version}: {self.commands - len(self.missing)} of {self.commands} commands"
            f" and {self.options - len(self.unused)} of {self.options} options have calls"
        )
        return text + (f"; without: {', '.join((*left_out, *self.unused))}" if left_out or self.unused else "")


def measure(server: Server) -> Coverage:
    names = list(_names(server.call("COMMAND")))
    missing = tuple(name for name in names if not _is_used(name))
    options = sorted(set(_options(server))) if server.version[1] >= 7 else []
    unused = tuple(f"{name} {token}" for name, token in options if not _has_option(name, token))
    return Coverage(server.name, len(names), missing, len(options), unused)


def _is_used(name: str) -> bool:
    command, _, subcommand = name.partition(" ")
    return command in used() and (not subcommand or subcommand in used()[command])


def _has_option(name: str, token: str) -> bool:
    return name in UNUSED or token.upper() in used().get(name.partition(" ")[0], ())


def _names(reply: Any) -> Iterator[str]:
    for entry in reply:
        yield entry[0].decode().upper()
        for sub in entry[9] if len(entry) > 9 else ():
            yield command_name(sub[0].upper().split(b"|"))


def _options(server: Server) -> Iterator[tuple[str, str]]:
    for name, doc in _pairs(server.call("COMMAND", "DOCS")):
        yield from _documented(name.decode(), doc)


def _documented(name: str, doc: Any) -> Iterator[tuple[str, str]]:
    fields = dict(_pairs(doc))
    for token in _tokens(fields.get(b"arguments", ())):
        if token:
            yield name.upper().replace("|", " "), token
    for sub, sub_doc in _pairs(fields.get(b"subcommands", ())):
        yield from _documented(sub.decode(), sub_doc)


def _tokens(arguments: Any) -> Iterator[str]:
    for argument in arguments:
        fields = dict(_pairs(argument))
        if b"token" in fields:
            yield fields[b"token"].decode()
        yield from _tokens(fields.get(b"arguments", ()))


def _pairs(flat: Any) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
