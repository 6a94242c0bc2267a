"""The results as tables (terminal and Markdown), in words, and as a plot. Says plainly what is ahead and what behind.

Pure but for `write`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from rich import box
from rich.table import Table as RichTable

from bench import plot
from bench.copy import MARK
from bench.latency import RATE as OPEN_LOOP_RATE
from bench.results import CPU, METRICS, P99, PATH, RATE, Metric, Ratio, Results, Verdict

SUBJECT, REFERENCE, BASE = "crossfade", "envoy", "direct"
REPORT_NAME, PLOT_NAME = "performance.md", "performance.png"
BAR_WIDTH = 40
MISSING = "–"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def rich(self) -> RichTable:
        table = RichTable(title=self.title, box=box.SIMPLE, title_justify="left", caption_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [f"## {self.title}", ""]
        lines += [self.note, ""] if self.note else []
        lines += [_row(self.columns), _row(["---", *["---:"] * (len(self.columns) - 1)])]
        return "\n".join([*lines, *map(_row, self.rows)])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def tables(results: Results) -> list[Table]:
    found = [_cpu(results, CPU), _compared(results, RATE), _compared(results, P99), _cpu(results, PATH)]
    found += [_latency(results)] if results.latency else []
    found += [_mirror(results)] if results.equality else []
    return found


def _proxies(results: Results) -> list[str]:
    return [peer for peer in results.peers if peer != BASE]


def _both(results: Results) -> bool:
    return SUBJECT in results.peers and REFERENCE in results.peers


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ratio(ratio: Ratio | None, span: bool = False) -> str:
    if ratio is None:
        return MISSING
    return f"{ratio.median:.2f}" + (f" ({ratio.low:.2f}..{ratio.high:.2f})" if span else "")


_TITLES = {
    CPU: (
        "CPU time in the proxy process, µs per command",
        "User and system time of all threads, until the proxy is idle again. Less is better.",
    ),
    PATH: (
        "CPU time of proxy, source and target together, µs per command",
        "A mirroring proxy makes the target work as well; one that batches spares the source. Less is better.",
    ),
    RATE: ("Throughput, relative to direct access", "More is better."),
    P99: ("p99 latency under full load, relative to direct access", "A closed loop. Less is better."),
}
_PERCENTILES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
_RANK = (REFERENCE, "twemproxy", BASE)  # the comparison that matters first
_UNITS = {RATE: "cmd/s", P99: "ms"}


def _cpu(results: Results, metric: Metric) -> Table:
    peers = results.peers if metric is PATH else _proxies(results)
    columns = ["case", *peers]
    columns += [f"{SUBJECT} ÷ {REFERENCE}"] if _both(results) else []
    rows = []
    for case in results.cases:
        row = [case, *(_number(results.middle(case, p, metric)) for p in peers)]
        row += [_ratio(results.ratio(case, SUBJECT, REFERENCE, metric), span=True)] if _both(results) else []
        rows.append(row)
    title, note = _TITLES[metric]
    return Table(title, columns, rows, note)


def _compared(results: Results, metric: Metric) -> Table:
    title, note = _TITLES[metric]
    proxies = _proxies(results)
    columns = ["case", f"direct, {_UNITS[metric]}", *proxies]
    columns += [f"{SUBJECT} ÷ {REFERENCE}"] if _both(results) else []
    rows = []
    for case in results.cases:
        row = [case, _number(results.middle(case, BASE, metric))]
        row += [_ratio(results.ratio(case, p, BASE, metric)) for p in proxies]
        row += [_ratio(results.ratio(case, SUBJECT, REFERENCE, metric), span=True)] if _both(results) else []
        rows.append(row)
    return Table(title, columns, rows, note)


def _latency(results: Results) -> Table:
    rows = []
    for peer in results.peers:
        cells = [peer]
        for name in _PERCENTILES:
            values = sorted(getattr(found, name) for (who, _), found in results.latency.items() if who == peer)
            middle = values[len(values) // 2] if values else None
            cells += [_number(middle), _ratio(results.latency_ratio(peer, BASE, attrgetter(name)))]
        rows.append(cells)
    columns = ["peer", *(title for text in _PERCENTILES.values() for title in (f"{text}, ms", "÷ direct"))]
    note = (
        f"{OPEN_LOOP_RATE:,} commands per second (SET and GET in turns, 64 B, 16 connections) leave at their time "
        "whether or not replies come; latency counts from the time a command was due. Less is better."
    )
    return Table("Latency at a fixed rate (open loop)", columns, rows, note)


def _mirror(results: Results) -> Table:
    rows = []
    for peer in sorted(results.mirroring):
        found = {case: e for (case, who), e in results.equality.items() if who == peer}
        checked, equal = sum(e.checked for e in found.values()), sum(e.equal for e in found.values())
        unequal = ", ".join(f"{case} ({e.checked - e.equal})" for case, e in found.items() if e.equal < e.checked)
        longest = max((e.seconds for e in found.values()), default=0.0)
        rows.append([peer, f"{checked:,}", f"{equal:,}", f"{longest:.1f}", unequal or "none"])
    note = "A sample of each case's keys, read on source and target after the load, for up to 10 s until equal."
    return Table("Are both sides equal?", ["peer", "keys", "equal", "after s at most", "unequal in"], rows, note)


def verdicts(results: Results) -> Iterator[str]:
    """One paragraph per peer and metric, as Markdown list items: counts, then every case that is behind."""
    if SUBJECT not in results.peers:
        yield f"- {SUBJECT} was not measured: {results.skipped.get(SUBJECT, 'not asked for')}."
        return
    others = sorted((peer for peer in results.peers if peer != SUBJECT), key=_RANK.index)
    for other in others:
        for metric in METRICS:
            ratios = {case: results.ratio(case, SUBJECT, other, metric) for case in results.cases}
            known = {case: ratio for case, ratio in ratios.items() if ratio is not None}
            if known:
                yield _verdict(other, metric, known)
        for name, text in _PERCENTILES.items():
            if ratio := results.latency_ratio(SUBJECT, other, attrgetter(name)):
                verdict = ratio.verdict(P99).value
                yield f"- **{text} latency at a fixed rate, against {other}**: {verdict}, {_ratio(ratio, span=True)}."


def _verdict(other: str, metric: Metric, ratios: dict[str, Ratio]) -> str:
    by: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for case, ratio in ratios.items():
        by[ratio.verdict(metric)].append(f"{case} ({ratio.median:.2f})")
    counts = ", ".join(f"{verdict.value} in {len(cases)}" for verdict, cases in by.items())
    named = by[Verdict.BEHIND] if other != BASE else []  # any proxy is behind no proxy; the tables say by how much
    behind = f" Behind: {'; '.join(named)}." if named else ""
    return f"- **{metric.name}, against {other}**: {counts} of {len(ratios)} cases.{behind}"


def bars(results: Results) -> str:
    """Throughput relative to direct, of the cases everybody knows, as text."""
    common = [case for case in results.cases if case.split()[0] in {"SET", "GET"} and case.endswith("50 clients")]
    lines = []
    for case in [c for c in common if " 64 B" in c]:
        lines.append(case)
        for peer in _proxies(results):
            if ratio := results.ratio(case, peer, BASE, RATE):
                lines.append(f"  {peer:<10} {'█' * round(min(ratio.median, 1.5) * BAR_WIDTH)} {ratio.median:.2f}")
    return "\n".join(lines)


def gaps(results: Results) -> Iterator[str]:
    """Everything that is missing, and why."""
    for peer, reason in results.skipped.items():
        yield f"- {peer} is missing: {reason}"
    for (case, peer), reason in results.failures.items():
        yield f"- {peer} failed in {case}: {reason}"
    restless = sorted({(s.case, s.peer) for s in results.samples if not s.settled})
    for case, peer in restless:
        yield f"- {peer} was still busy 10 s after {case}: its CPU figure is too low"
    if results.left_out:
        yield f"- out of time, not measured: {'; '.join(results.left_out)}"


def _intro(results: Results) -> str:
    return (
        f"Written by `python -m bench {results.mode}` ({results.took_s:.0f} s, {results.rounds} rounds). Each round "
        "runs all peers right after each other, so a ratio compares neighbours in time; a figure is the median of the "
        "rounds, a range their extremes. Absolute figures belong to this machine and this hour; the ratios are what to "
        "look at. envoy and crossfade write to both servers, twemproxy and direct access to the source only. Load, "
        "proxy and servers share the cores: a proxy that uses less CPU also leaves more to the others.\n\n"
        "P is the pipeline depth. redis-benchmark drives the load, each peer on keys of its own that exist before. A "
        "run counts only if the source itself counted every command and no error."
    )


def markdown(results: Results) -> str:
    facts = results.machine | results.versions
    parts = [
        "# Performance",
        _intro(results),
        "\n".join(["| | |", "| --- | --- |", *(_row([name, text]) for name, text in facts.items())]),
        "## Ahead and behind",
        "Ahead or behind when every round says so and the median differs by more than 5 %; otherwise even. In "
        f"brackets: the median ratio, {SUBJECT} ÷ the other.",
        "\n".join(verdicts(results)),
        "\n".join(gaps(results)) or "Nothing is missing in this run.",
        f"![Throughput and CPU time by case]({PLOT_NAME})",
        f"Throughput relative to direct access (1.00):\n\n```text\n{bars(results)}\n```",
        *(table.markdown() for table in tables(results)),
    ]
    return "\n\n".join(parts) + "\n"


def write(results: Results, directory: Path, raw: Path | None) -> Path:
    """Report and plot into the directory; all samples as JSON into `raw`. The section of bench.copy stays."""
    directory.mkdir(parents=True, exist_ok=True)
    report = directory / REPORT_NAME
    _, mark, section = report.read_text().partition(MARK) if report.exists() else ("", "", "")
    report.write_text(markdown(results) + (f"\n{mark}{section}" if mark else ""))
    _plot(results, directory / PLOT_NAME)
    if raw is not None:
        raw.write_text(json.dumps(results.as_json(), indent=1))
    return report


def _plot(results: Results, file: Path) -> None:
    def of(value: Callable[[str, str], float | None]) -> dict[str, list[float | None]]:
        return {peer: [value(case, peer) for case in results.cases] for peer in _proxies(results)}

    def rate(case: str, peer: str) -> float | None:
        found = results.ratio(case, peer, BASE, RATE)
        return found.median if found else None

    rates = plot.Panel("Throughput, relative to direct access (more is better)", of(rate), line_at=1.0)
    cpu = plot.Panel("CPU µs per command in the proxy (less is better)", of(lambda c, p: results.middle(c, p, CPU)))
    plot.write(file, results.cases, [rates, cpu])
