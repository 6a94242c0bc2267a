"""crossfade: moves a live Redis to another Redis with no downtime. The root of the command line.

A command is imported when it is called: all of them together take longer to import than most of them to run.
"""

from __future__ import annotations

from importlib import import_module

import click


class Later(click.Command):
    """Stands for a command that is not imported yet. `summary`: the first sentence of its help."""

    def __init__(self, name: str, where: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._where = where

    def load(self) -> click.Command:
        """The command itself."""
        module, _, attribute = self._where.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


class LazyGroup(click.Group):
    """Commands become themselves when one of them is called, or asked for its help or its completions."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Later) else command, rest


COMMANDS = (
    Later(
        "proxy", "proxy.cli_proxy:proxy", "Stand between the applications and SOURCE, and mirror every write to TARGET."
    ),
    Later("status", "proxy.cli:status", "What the running proxy is doing, and what is wrong."),
    Later("backfill", "proxy.cli:backfill", "Copy every key of the serving side, exactly, under live traffic."),
    Later("verify", "proxy.cli:verify", "Compare both sides key by key, exactly, under live traffic."),
    Later("flip", "proxy.cli:flip", "Let the other side serve."),
    Later("finish", "proxy.cli:finish", "End mirroring to the source, when you are content with the target."),
    Later("stop", "proxy.cli:stop", "Stop the running proxy, once everything has settled."),
    Later(
        "thaw",
        "proxy.cli:thaw",
        "Accept that the serving side has lost keys: they are deleted on the mirror side, too.",
    ),
    Later(
        "demo",
        "proxy.demo.command:demo",
        "A whole migration and back, on servers of its own, in about a minute.",
    ),
    Later(
        "preflight",
        "backfill.preflight.command:preflight",
        "Look at both servers before anything starts, and say what stands in the way.",
    ),
    Later(
        "replicate",
        "backfill.cli_copy:replicate",
        "Copy the keys of SOURCE to TARGET, without a proxy: once, or (--mode live) on and on.",
    ),
    Later(
        "compare",
        "backfill.cli_compare:compare",
        "Compare SOURCE and TARGET key by key, both ways, without a proxy.",
    ),
    Later(
        "export",
        "backfill.cli_files:export_command",
        'Write the keys of SOURCE to FILE ("-": standard output; gzip if the name ends in .gz).',
    ),
    Later(
        "import",
        "backfill.cli_files:import_command",
        'Write the keys in FILE ("-": standard input) to TARGET.',
    ),
)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crossfade")
def main() -> None:
    """Move a live Redis to another Redis with no downtime, no data loss and no change to the application."""


for each in COMMANDS:
    main.add_command(each)


if __name__ == "__main__":
    main()
