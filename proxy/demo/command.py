"""`crossfade demo`: options, signals, exit codes.

Exit codes: 0 everything is as it should be, 1 something is not, 3 no server or no client library to play with; 130 and
143 interrupted by SIGINT or SIGTERM, with everything cleaned up.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import click
import trio

from backfill.cli_types import EXIT_CONNECT, EXIT_DIFFERENT, EXIT_OK
from backfill.embedded import FLAVOURS, Binary, EmbeddedError, available
from backfill.errors import BackfillError
from proxy.demo import data
from proxy.demo.account import Account, Trouble
from proxy.demo.story import Plan, Story, describe
from proxy.demo.view import Output, View

INSTALL = "pip install 'crossfade[demo]'"
SOURCES = ("redis-6.2", "redis-7.0", "valkey-8.1", "redis-8.2", "valkey-9.1")  # the first that is here
TARGETS = ("valkey-9.1", "redis-8.2", "valkey-8.1", "redis-7.0", "redis-6.2")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXPECTED = (Trouble, EmbeddedError, BackfillError)  # each has a `text`


@click.command()
@click.option("--from", "source", type=click.Choice(list(FLAVOURS)), help="The server to leave.")
@click.option("--to", "target", type=click.Choice(list(FLAVOURS)), help="The server to move to.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON; the account goes to stderr.")
@click.option("--keys", type=click.IntRange(min=100), default=data.DEFAULT_KEYS, hidden=True)
@click.option("--beat", type=click.FloatRange(min=0), default=1.5, hidden=True, help="Seconds between two steps.")
def demo(source: str | None, target: str | None, as_json: bool, keys: int, beat: float) -> None:
    """A whole migration and back, on servers of its own, in about a minute.

    An application works through the proxy all the time and checks what it reads. At the end both servers are compared.
    """
    found = {binary.name: binary for binary in available()}
    missing = _missing(found, source, target)
    if missing:
        click.echo(f"crossfade: {missing}: {INSTALL}", err=True)
        sys.exit(EXIT_CONNECT)
    plan = Plan(_first(found, source, SOURCES), _first(found, target, TARGETS), keys, beat)
    account = Account(source=describe(plan.source), target=describe(plan.target))
    view = View(Output(stderr=as_json, highlight=False))
    code = play(plan, view, account)
    if as_json:
        click.echo(json.dumps(account.to_json(), indent=1))
    sys.exit(code)


def _missing(found: dict[str, Binary], *wanted: str | None) -> str:
    """What is not here, as the beginning of a line; "" when nothing is missing."""
    if importlib.util.find_spec("redis") is None:
        return "the demo's application needs redis-py"
    if not found:
        return "the demo needs a Redis or Valkey server, and found none on this machine"
    absent = sorted({name for name in wanted if name is not None and name not in found})
    return f"there is no {' and no '.join(absent)} server on this machine" if absent else ""


def _first(found: dict[str, Binary], chosen: str | None, names: Sequence[str]) -> Binary:
    return found[chosen] if chosen is not None else next(found[name] for name in names if name in found)


def play(plan: Plan, view: View, account: Account) -> int:
    """Tell the story and its end; the exit code."""
    view.title(f"crossfade demo: a live migration from {account.source} to {account.target}, and back")
    began = time.monotonic()
    number = trio.run(interruptible, Story(plan, view, account).run, account)
    account.seconds = round(time.monotonic() - began, 1)
    if number:
        view.outcome(f"Interrupted by {signal.Signals(number).name}: everything is stopped and removed.", good=False)
        return 128 + number
    view.summary(account)
    return EXIT_OK if account.ok else EXIT_DIFFERENT


async def told(story: Callable[[], Awaitable[None]], account: Account) -> None:
    """Run the story; what stops it is a problem in the account."""
    try:
        await story()
    except* EXPECTED as problems:
        account.problems += dict.fromkeys(_texts(problems))


def _texts(problem: BaseException) -> Iterator[str]:
    if isinstance(problem, BaseExceptionGroup):
        for inner in problem.exceptions:
            yield from _texts(inner)
    else:
        assert isinstance(problem, EXPECTED)
        yield problem.text


async def interruptible(story: Callable[[], Awaitable[None]], account: Account) -> int:
    """Run the story to its end, or until a signal; its number then, else 0. The signals are held back until everything
    is cleaned up, so that a second Ctrl-C does not leave half of it behind."""
    caught = 0
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal caught
                async for number in signals:
                    caught = caught or number
                    scope.cancel()

            with trio.CancelScope() as scope:
                nursery.start_soon(watch)
                await told(story, account)
            nursery.cancel_scope.cancel()
    return caught
