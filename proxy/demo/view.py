"""How the demo looks: sections that stay, and below them, on a terminal, what is going on right now.

Without a terminal (a CI log) the same sections come as plain lines, and what is going on as a line every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from proxy.demo.account import Account, Trouble

MAX_WIDTH = 100  # longer lines are hard to read
INDENT = 3
LOG_SECONDS = 4.0  # between two lines about what is going on, without a terminal
LABEL_WIDTH = 12
BAR_WIDTH = 28


class Output(Console):
    """A console that lets the story end in order when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()  # no more output, not even at the end of the process
        raise Trouble("nobody reads the account any more")


class View:
    """Prints the story. `pulse` is the application's line; whoever knows it sets it."""

    def __init__(self, console: Console) -> None:
        console.width = min(console.width, MAX_WIDTH)
        self._console = console
        self._live: Live | None = None
        self._sections = 0
        self._bar: tuple[str, int, int] | None = None  # label, done, total
        self._logged_at = 0.0
        self.pulse = ""

    @contextmanager
    def live(self) -> Iterator[None]:
        """The lines at the bottom, for as long as the block lasts. `refresh` them from time to time."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            try:
                yield
            finally:
                self._live.update(Text(), refresh=True)
                self._live = None

    def title(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))

    def section(self, title: str) -> None:
        """A new numbered step."""
        self._sections += 1
        self._console.print()
        self._console.print(Text(f"{self._sections:2} {title}", style="bold cyan"))

    def say(self, text: str) -> None:
        """What happens, and why."""
        self._indented(Text(text))

    def command(self, text: str) -> None:
        """What an operator would type here; its lines are not broken."""
        self._indented(Text(f"$ {text}", style="bold", no_wrap=True, overflow="ignore"))

    def outcome(self, text: str, good: bool = True) -> None:
        """How a step ended."""
        self._indented(Text(text, style="green" if good else "bold red"))

    def progress(self, label: str, done: int, total: int) -> None:
        """Show how far a step is; `clear` when it is done."""
        if self._bar is None:
            self._logged_at = time.monotonic()  # what is done in no time needs no line
        self._bar = label, done, total

    def clear(self) -> None:
        self._bar = None

    def refresh(self) -> None:
        """Show what is going on right now."""
        if self._live is not None:
            self._live.update(Padding(self._now(), (1, 0, 0, INDENT)), refresh=True)
        elif self._bar is not None and time.monotonic() - self._logged_at > LOG_SECONDS:
            self._logged_at = time.monotonic()
            label, done, total = self._bar
            self._indented(Text("; ".join(filter(None, [f"{label}: {done:,} of {total:,} keys", self.pulse]))))

    def _indented(self, text: Text) -> None:
        lines = text.wrap(self._console, self._console.width - INDENT) if not text.no_wrap else text.split("\n")
        for line in lines:  # not through Padding, which fills lines up with blanks
            line.rstrip()
            self._console.print(Text(" " * INDENT) + line, highlight=False, soft_wrap=True)

    def _now(self) -> RenderableType:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=LABEL_WIDTH, no_wrap=True)
        table.add_column(no_wrap=True)
        if self._bar is not None:
            label, done, total = self._bar
            row = Table.grid(padding=(0, 2, 0, 0))
            row.add_row(ProgressBar(max(total, 1), done, width=BAR_WIDTH), f"{done:,} of {total:,} keys")
            table.add_row(label, row)
        if self.pulse:
            table.add_row("application", self.pulse)
        return table

    # -- the end -------------------------------------------------------------------------------------------------------

    def summary(self, account: Account) -> None:
        """The tables, and the verdict."""
        self.section("Summary")
        for table in (_keys_table(account), _application_table(account), _facts_table(account)):
            if table.row_count:
                self._console.print()
                self._console.print(Padding(table, (0, 0, 0, INDENT), expand=False), highlight=False)
        self._console.print()
        for problem in account.problems:
            self.outcome(problem, good=False)
        if account.ok:
            self.outcome(f"Everything is as it should be, after {account.seconds:.0f} s.")
        else:
            self.outcome(f"Not everything is as it should be, after {account.seconds:.0f} s.", good=False)


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    return table


def _keys_table(account: Account) -> Table:
    table = _table("keys at rest", "source", "target", "different")
    found = account.comparison
    if found is None:
        return table
    for kind in found.kinds:
        table.add_row(kind, *_numbers(found.source[kind], found.target[kind], found.different[kind]))
    table.add_row("all", *_numbers(found.source.total(), found.target.total(), found.different.total()), style="bold")
    return table


def _application_table(account: Account) -> Table:
    table = _table("application", "commands", "checks", "errors", "wrong")
    names = ("commands", "checks", "errors", "wrong")
    for role, counts in account.application.get("roles", {}).items():
        table.add_row(role, *_numbers(*(counts[name] for name in names)))
    if account.application:
        table.add_row("all", *_numbers(*(account.application[name] for name in names)), style="bold")
    return table


def _facts_table(account: Account) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=False, pad_edge=False)
    for name, text in facts(account):
        table.add_row(name, text)
    return table


def facts(account: Account) -> Iterator[tuple[str, str]]:
    """The lines below the tables."""
    if account.application:
        final = account.application
        yield (
            "application",
            f"{final['commands'] / final['seconds']:,.0f} commands/s for {final['seconds']:.0f} s, "
            f"longest command {final['slowest_ms']:.0f} ms",
        )
    if account.backfill:
        end = account.backfill
        yield "backfill", f"{end['copied']:,} keys copied, {end['failed']:,} failed, {end['seconds']:.1f} s"
    for end in account.verifies:
        yield "verify", f"{end['checked']:,} keys compared, {end['different']:,} different, {end['seconds']:.1f} s"
    for flip in account.flips:
        if flip["flipped"]:
            yield (
                f"flip to the {flip['serving']}",
                f"pause {flip['pause_ms']:.1f} ms; longest command around it {flip['slowest_command_ms']:.1f} ms",
            )
    if account.comparison is not None:
        yield "compared at rest", f"{account.comparison.different.total():,} different, by the demo's own reading"


def _numbers(*counts: int) -> list[str]:
    return [f"{count:,}" for count in counts]
