"""docs/commands.md says what the tables say, about every command."""

from __future__ import annotations

import re

import pytest

from proxy.commands_doc import GROUPS, NOTES, PAGE, Row, mirrored, notes, page, render, routed
from proxy.effects import RULES
from proxy.local import ANSWERS
from resp.catalog import Catalog, Route, Spec
from resp.keys import first_key

CATALOG = Catalog.default()
MAX_TEXT = 100  # of a phrase; longer ones belong in NOTES
LINE = re.compile(r"\| (`.*) \| (.*) \| (.*) \| (.*) \|")
LABEL = re.compile(r"`([^`]+)`( with any other word)?")

IN_TABLE = [
    ("GET", Row("lane", "nothing", "")),
    ("SPOP", Row("lane", "SREM of the members in the reply", "")),
    ("INCR", Row("lane", "as sent, same reply expected; expiry guard", "")),
    ("SDIFFSTORE", Row("lane", "state copy of the destination", "")),
    ("CLIENT ID", Row("answered by the proxy", "nothing", "the proxy's number for the connection")),
    ("CLIENT CAPA", Row("own connection", "nothing", "")),
    ("CONFIG SET", Row("own connection", "nothing", "acts on the serving side alone")),
    ("PFDEBUG", Row("own connection", "state copy of its keys", "")),
]


def spec(name: str) -> Spec:
    return CATALOG.specs[name.encode()]


def rows(text: str) -> list[tuple[str, Row]]:
    """Every name in the tables of commands, with its line; unlisted subcommands apart."""
    lines = [match for line in text.splitlines() if (match := LINE.fullmatch(line))]
    return [
        (name, Row(*line.groups()[1:])) for line in lines for name, unlisted in LABEL.findall(line[1]) if not unlisted
    ]


def test_the_committed_page_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/commands.md is stale: run `make docs` and commit it"


def test_every_command_is_in_it_once() -> None:
    names = [name for name, _ in rows(render(CATALOG, []))]
    assert sorted(names) == sorted(one.name.decode() for one in CATALOG)


@pytest.mark.parametrize(("name", "row"), IN_TABLE, ids=[name for name, _ in IN_TABLE])
def test_what_it_says_of_a_command(name: str, row: Row) -> None:
    assert dict(rows(render(CATALOG, [])))[name] == row


@pytest.mark.parametrize("one", list(CATALOG), ids=lambda one: one.name.decode())
def test_every_command_has_its_words(one: Spec) -> None:
    assert routed(one)
    assert mirrored(one)
    assert (mirrored(one) == "nothing") is not (one.writes or one.route is Route.REFUSED or one.name == b"EXEC")
    assert ("ERR" in notes(one)) is (one.route is Route.REFUSED)
    assert (routed(one) == "answered by the proxy") is (one.route is Route.LOCAL and one.name in ANSWERS)


@pytest.mark.parametrize("name", list(RULES), ids=bytes.decode)
def test_every_rule_says_how_in_a_short_phrase(name: bytes) -> None:
    text = RULES[name].text
    assert text == text.strip(" .;,")
    assert 0 < len(text) <= MAX_TEXT


def test_refusals_are_in_it_word_by_word() -> None:
    assert notes(spec("SHUTDOWN")) == f"`ERR {spec('SHUTDOWN').refusal.replace('SHUTDOWN', '…')}`"


def test_groups_and_notes_name_nothing_unknown() -> None:
    grouped = [name for words in GROUPS.values() for name in words.split()]
    assert len(grouped) == len(set(grouped))
    assert {name.encode() for name in [*grouped, *NOTES]} <= CATALOG.specs.keys()


def test_a_command_without_a_group_is_an_error() -> None:
    catalog = Catalog.default()
    catalog.specs[b"NEW"] = Spec(b"NEW", Route.READ, first_key, writes=False)
    with pytest.raises(ValueError, match="NEW"):
        render(catalog, [])


def test_differences_are_listed_and_cells_stay_cells() -> None:
    assert "| TIME | near | a | b |".replace("a | b", r"a\|b") in render(CATALOG, [("TIME", "near", "a|b")])
