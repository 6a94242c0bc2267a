"""crossfade: moves a live Redis to another Redis with no downtime. The root of the command line."""

from __future__ import annotations

import click

from backfill import cli_copy, cli_files
from backfill.preflight.command import preflight
from proxy.cli import COMMANDS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crossfade")
def main() -> None:
    """Move a live Redis to another Redis with no downtime, no data loss and no change to the application."""


for command in [*COMMANDS, preflight, *cli_copy.COMMANDS, *cli_files.COMMANDS]:
    main.add_command(command)


if __name__ == "__main__":
    main()
