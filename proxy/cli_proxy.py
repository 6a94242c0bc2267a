"""`crossfade proxy`: its options, and what becomes of a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from setproctitle import setproctitle

from backfill.cli_types import EXIT_USAGE, Failed, fail, source_and_target
from backfill.url import Url
from proxy.cli import state_dir_option
from proxy.journal import Sync, WhenFull
from proxy.running import run_proxy
from proxy.scrubbing import DEFAULT_RATE
from proxy.server import Proxy, Settings


class AddressType(click.ParamType[tuple[str, int]]):
    """HOST:PORT, [V6]:PORT or PORT."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


@click.command()
@source_and_target
@click.option("--listen", type=AddressType(), default="127.0.0.1:7379", show_default=True, help="For the applications.")
@click.option("--http", type=AddressType(), help="Prometheus metrics on this address.")
@click.option("--no-auth", is_flag=True, help="Let clients in without the source's password.")
@click.option(
    "--journal-sync",
    type=click.Choice([policy.value for policy in Sync]),
    default=Sync.EVERYSEC.value,
    show_default=True,
    help="When the journal is fsynced. A killed proxy loses nothing in any case; a crashed machine may lose a second.",
)
@click.option(
    "--journal-full",
    type=click.Choice([policy.value for policy in WhenFull]),
    default=WhenFull.CONTINUE.value,
    show_default=True,
    help="When its disk is full: serve on (a crash then costs a new backfill), or refuse writes.",
)
@click.option("--no-watch", is_flag=True, help="Do not watch for changes made by others, or by scripts unseen.")
@click.option(
    "--scrub",
    type=click.FloatRange(min=0),
    default=DEFAULT_RATE,
    show_default=True,
    help="Keys a second compared in the background, without end, and copied again where they differ; 0: none.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=0,
    envvar="CROSSFADE_WORKERS",
    show_default=True,
    help="Processes that talk to clients, to use more than one core; 0: one process does everything.",
)
@click.option(
    "--ferry",
    type=click.IntRange(0),
    default=20_000,
    envvar="CROSSFADE_FERRY",
    show_default=True,
    help="From so many keys on a backfill copies them with a process of its own, beside the lane; 0: never.",
)
@click.option("--allow-non-empty", is_flag=True, help="Take a target that has keys; those not on the source go.")
@state_dir_option
def proxy(
    source: Url,
    target: Url,
    listen: tuple[str, int],
    http: tuple[str, int] | None,
    no_auth: bool,
    journal_sync: str,
    journal_full: str,
    no_watch: bool,
    scrub: float,
    workers: int,
    ferry: int,
    allow_non_empty: bool,
    state_dir: Path,
) -> None:
    """Stand between the applications and SOURCE, and mirror every write to TARGET.

    URLs may come from the environment (CROSSFADE_SOURCE, CROSSFADE_TARGET), which keeps passwords off the command line.
    """
    if source.db != target.db:
        fail(
            "source and target URL must name the same db: every db is mirrored to the db of the same number", EXIT_USAGE
        )
    setproctitle(f"crossfade proxy --source {source} --target {target} --listen {listen[0]}:{listen[1]}")
    settings = Settings(
        source,
        target,
        *listen,
        no_auth=no_auth,
        allow_non_empty=allow_non_empty,
        journal_sync=Sync(journal_sync),
        journal_full=WhenFull(journal_full),
        watch=not no_watch,
        scrub=scrub,
        workers=workers,
        ferry=ferry,
    )

    def say(running: Proxy) -> None:
        click.echo(
            f"crossfade: listening on {listen[0]}:{running.port}, {running.roles.serving.value} serves, "
            f"phase {running.phase.value}, state in {state_dir}",
            err=True,
        )

    try:
        run_proxy(settings, state_dir, http, say)
    except Failed as problem:
        fail(problem.text, problem.code)
