"""How status and outcomes look on a terminal. Pure: documents in, rich renderables and lines out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from backfill.compare import show
from backfill.counts import STATUSES
from proxy.problems import duration

MAX_SHOWN = 20  # findings of a verify


def status_table(status: dict[str, Any]) -> Table:
    """The status document for a person."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _rows(status):
        table.add_row(name, Text(value))  # as it is: a key may look like markup
    return table


def _rows(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "phase", status["phase"]
    yield "serving", f"{status['serving']} (epoch {status['epoch']})"
    if status["finished"]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status["finished"]))
        yield "finished", f"{since}: nothing is mirrored; point the {status['clients']:,} clients at the target"
    for name in ("source", "target"):
        side = status[name]
        state = "connected" if side["connected"] else f"{side['problem']}, for {duration(time.time() - side['since'])}"
        yield name, f"{side['url']}  {side['version']}  {state}"
    mirror = status["mirror"]
    yield (
        "mirror queue",
        (f"{mirror['queued']:,} awaited, {mirror['queued_bytes']:,} bytes, lag {mirror['lag_ms']:.1f} ms"),
    )
    reasons = status["copies"]["reasons"]
    most = f"  (mostly: {next(iter(reasons))})" if status["dirty"] and reasons else ""
    yield "dirty keys", f"{status['dirty']:,}{most}"
    if status["unmirrored"]:
        yield "unmirrored", f"{status['unmirrored']:,}: {', '.join(status['unmirrored_commands'])}"
    unheld = status["unheld"]
    if unheld["commands"] or unheld["misunderstood"] or unheld["keys"]:
        commands = ", ".join(f"{name} ({calls:,})" for name, calls in unheld["commands"].items())
        told = [f"commands {commands}"] if commands else []
        told += [f"{text} ({count:,})" for text, count in unheld["misunderstood"].items()]
        told += [f"{unheld['keys']:,} keys, {'; '.join(unheld['examples'][:2])}"] if unheld["keys"] else []
        yield "not for the mirror", "; ".join(told)
    yield "clients", f"{status['clients']:,} ({status['waiting']:,} blocked, {status['pinned']:,} pinned)"
    filling = status["backfill"]
    yield (
        "backfill",
        f"{filling['state']}, {filling['copied']:,} of {filling['total']:,} keys, {filling['failed']:,} failed"
        + (f", only {filling['selection']}" if filling["selection"] else "")
        + (", yielding to live traffic" if filling["yielding"] else ""),
    )
    copies = status["copies"]
    if copies["in_pages"]:
        yield "big keys", f"{copies['in_pages']:,} being copied in pages, {copies['pages']:,} pages so far"
    check = status["verify"]
    yield (
        "verify",
        f"{check['state']}, {check['checked']:,} checked, {sum(check[name] for name in STATUSES):,} different",
    )
    yield "scrub", _scrub(status["scrub"])
    for flip in status["flips"][-3:]:
        yield "flip", f"to {flip['serving']}, pause {flip['pause_ms']:.1f} ms"
    for problem in status["problems"]:
        yield "problem", problem


def _scrub(scrub: dict[str, Any]) -> str:
    """What the comparison in the background has found, and when."""
    if scrub["state"] == "off":
        return "off (--scrub 0)"
    last = scrub["last"]
    if last is None:
        ended = "no pass has ended yet"
    else:
        found = last["repaired"] + last["different"]
        outcome = f"{found:,} differed" if found else "all equal"
        ended = f"last pass {ago(last['ended'])}: {last['checked']:,} keys, {outcome}"
    clean = scrub["last_clean"]
    if clean and (last is None or clean != last["ended"]):
        ended += f"; last clean one {ago(clean)}"
    return f"{scrub['checked']:,} of {scrub['total']:,} keys at {scrub['rate']:g}/s; {ended}"


def ago(at: float) -> str:
    """How long ago this was (time.time()), as people say it."""
    return f"{duration(time.time() - at)} ago"


def verify_lines(report: dict[str, Any], findings: list[dict[str, Any]]) -> Iterator[str]:
    """The outcome of a verify."""
    counts = ", ".join(f"{report[name]:,} {name}" for name in STATUSES if report[name])
    counts = f", {counts}" if counts else ""
    yield f"{report['checked']:,} keys checked, {report['equal']:,} equal{counts}, {report['seconds']:.1f} s"
    shown = findings[:MAX_SHOWN]
    for finding in shown:
        key = show(bytes.fromhex(finding["key_hex"]))
        yield f"  {finding['status'].upper()} db {finding['db']} {key}: {finding['detail']}"
    different = sum(report[name] for name in STATUSES)
    if different > len(shown):
        yield f"  ... and {different - len(shown):,} more (--json lists 1,000, --findings FILE has all)"
    if report["problem"]:
        yield f"not complete: {report['problem']}"


def force_lines(gate: dict[str, Any]) -> Iterator[str]:
    """What a forced flip may cost, from a dry run's outcome."""
    other = "target" if gate["serving"] == "source" else "source"
    if not gate["reasons"]:
        yield f"Nothing stands against the flip: nothing is lost, and --force is not needed. The {other} will serve."
        return
    yield f"--force lets the {other} serve although:"
    for reason in gate["reasons"]:
        yield f"  - {reason}"
    yield (
        f"What was written and has not reached the {other} is lost: keys that are dirty or were never copied are old "
        f"or missing there. A flip back needs a new backfill, which overwrites what is on the {gate['serving']}."
    )


def finish_lines(end: dict[str, Any], target: str) -> Iterator[str]:
    """The outcome of a finish."""
    if end["finished"]:
        yield f"finished: nothing is mirrored to the source any more (epoch {end['epoch']})"
        yield f"{end['clients']:,} clients are still connected to the proxy: point them at {target}, then stop it"
    else:
        yield f"not finished: the {end['serving']} serves, and both sides are kept equal as before"
    for reason in end["reasons"]:
        yield f"  - {reason}"


def flip_lines(outcome: dict[str, Any], dry_run: bool) -> Iterator[str]:
    """The outcome of a flip."""
    if outcome["flipped"]:
        side, epoch, pause = outcome["serving"], outcome["epoch"], outcome["pause_ms"]
        yield f"flipped: the {side} serves now (epoch {epoch}), pause {pause:.1f} ms"
    elif dry_run and not outcome["reasons"]:
        yield (
            f"a flip would go through: the drain took {outcome['drain_ms']:.1f} ms, "
            f"a pause of about {outcome['estimate_ms']:.1f} ms is to be expected"
        )
    else:
        yield f"not flipped: the {outcome['serving']} serves as before"
    for reason in outcome["reasons"]:
        yield f"  - {reason}"
    for warning in outcome["warnings"]:
        yield f"  ! {warning}"
