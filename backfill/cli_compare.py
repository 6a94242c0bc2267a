"""`crossfade compare`.

Owns options, what is printed, and exit codes: 0 equal, 1 differences, 2 usage, 3 cannot connect, 4 refused by a gate.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import click
from setproctitle import setproctitle

from .cli_copy import checkpointing, code_of, run_locked, say, selecting, selection_of, waiting
from .cli_types import EXIT_DIFFERENT, fail
from .compare import show
from .counts import STATUSES
from .direct.checkpoint import default_name, identity
from .direct.comparing import ComparePlan, Comparison
from .direct.comparing_progress import ComparisonFile
from .findings import FindingsFile
from .url import Url


class SampleType(click.ParamType[tuple[float, int]]):
    """N keys, or P% of them."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", str(value).strip())
        if found is None or (found[2] and not 0 < float(found[2]) <= 100) or found[1] == "0":
            self.fail(f"{value!r} is not a number of keys, nor a percentage: write 10000 or 5%", param, ctx)
        return (float(found[2]) / 100, 0) if found[2] else (1.0, int(found[1]))


@click.command()
@selecting
@click.option("--tolerance", type=click.IntRange(min=0), default=1000, show_default=True, help="Between TTLs, in ms.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Looks at a key that differs.")
@click.option("--pause", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Between them, in seconds.")
@click.option("--sample", type=SampleType(), help="Only so many keys, or this part of them, by chance.")
@click.option("--rate", type=click.FloatRange(min=0), default=0.0, help="Keys a second at most.")
@waiting
@click.option("--fix", is_flag=True, help="Copy what differs to TARGET, delete what only TARGET has.")
@click.option(
    "--findings", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="All differences as JSON lines."
)
@checkpointing
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    source: Url,
    target: Url,
    tolerance: int,
    rounds: int,
    pause: float,
    sample: tuple[float, int] | None,
    rate: float,
    patience: float,
    fix: bool,
    findings: Path | None,
    checkpoint: Path | None,
    state_dir: Path,
    restart: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Compare SOURCE and TARGET key by key, both ways, without a proxy.

    A key that differs is looked at again after a pause, as it may have changed between the two reads. The exit code is
    0 when all is equal (with --fix: by now), 1 when not. Killed at any time, the same command goes on where it was.

    With --type a key of another type on SOURCE is as good as none there.
    """
    selection = selection_of(source, target, **chosen)
    share, count = sample or (1.0, 0)
    setproctitle(f"crossfade compare {source} {target}")
    plan = ComparePlan(
        source,
        target,
        selection,
        tolerance_ms=tolerance,
        rounds=rounds,
        pause=pause,
        sample=share,
        sample_keys=count,
        seed=secrets.randbits(32),
        fix=fix,
        keys_rate=rate,
        patience=patience,
    )
    file = FindingsFile(findings) if findings is not None else None
    which = comparison_identity(plan, findings)
    kept = ComparisonFile(checkpoint or state_dir / default_name(which, "compare"), which)
    comparison = Comparison(plan, kept, file, say)
    try:
        problem = run_locked(kept, restart, comparison.run, lambda: _compare_bar(comparison))
    finally:
        if file is not None:
            file.close()
    _tell_comparison(comparison, as_json)
    if problem is not None:
        fail(problem.text, code_of(problem))
    report = comparison.report
    sys.exit(0 if report.complete and report.different == report.fixed else EXIT_DIFFERENT)


def comparison_identity(plan: ComparePlan, findings: Path | None) -> dict[str, Any]:
    """What must be the same for a comparison to be the same. No secrets."""
    which = identity(plan.source, plan.target, plan.selection, "compare")
    del which["mode"]
    return {
        **which,
        "--tolerance": plan.tolerance_ms,
        "--sample": [plan.sample, plan.sample_keys],
        "--fix": plan.fix,
        "--findings": str(findings.resolve()) if findings is not None else "",
    }


def _compare_bar(comparison: Comparison) -> dict[str, Any]:
    report = comparison.report
    told = f"{report.different:,} differ" if report.different else ""
    return {"completed": report.checked, "total": max(report.total, report.checked) or None, "told": told}


def _tell_comparison(comparison: Comparison, as_json: bool) -> None:
    report = comparison.report
    document = report.to_json()
    if as_json:
        click.echo(json.dumps({**document, "findings": [finding.to_json() for finding in report.findings]}))
        return
    if not report.complete and not report.checked:
        return  # the reason is all there is to say
    lines = [f"{report.checked:,} keys compared, {report.equal:,} equal, {report.seconds:.1f} s"]
    named = [f"{document[name]:,} {name}" for name in STATUSES if document[name]]
    lines += [", ".join(named)] if named else []
    lines += [f"{report.fixed:,} of them fixed"] if report.fixed else []
    lines += [f"db {each.db} {each.status} {show(each.key)}: {each.detail}" for each in report.findings]
    if report.different > len(report.findings):
        lines.append(f"... and {report.different - len(report.findings):,} more (--findings FILE has all)")
    lines += [] if report.complete else ["not complete: run the same command to go on"]
    for line in lines:
        click.echo(line)
