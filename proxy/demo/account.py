"""What happened in a demo, as a document: what --json prints, what the summary shows, and the verdict.

Pure: owns whether everything is as it should be, and nothing of how that is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proxy.demo.compare import Comparison

DIFFERENCES = ("missing", "extra", "type", "ttl", "value", "unreadable")  # the counts in verify's report


class Trouble(Exception):
    """The story cannot go on; `text` is one line that says why."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(slots=True)
class Account:
    """Filled in as the story goes on; what is still empty at the end did not happen."""

    source: str = ""  # "Redis 6.2.14"
    target: str = ""
    keys_written: int = 0
    backfill: dict[str, Any] = field(default_factory=dict)
    verifies: list[dict[str, Any]] = field(default_factory=list)
    flips: list[dict[str, Any]] = field(default_factory=list)
    application: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None
    problems: list[str] = field(default_factory=list)  # what is not as it should be, one line each
    complete: bool = False  # the story was told to its end
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.complete and not self.problems

    def take_backfill(self, end: dict[str, Any]) -> None:
        self.backfill = end
        if end["state"] != "done" or end["failed"]:
            self.problems.append(f"the backfill did not copy everything: {end['problem'] or end['failures']}")

    def take_verify(self, end: dict[str, Any], findings: list[dict[str, Any]]) -> None:
        different = sum(end[name] for name in DIFFERENCES)
        self.verifies.append({**end, "different": different, "findings": findings})
        if end["state"] != "done":
            self.problems.append(f"a verify did not end: {end['problem']}")
        if different:
            some = "; ".join(f"db {f['db']} {f['key']}: {f['detail']}" for f in findings[:3])
            self.problems.append(f"verify found {different:,} keys that differ: {some}")

    def take_flip(self, outcome: dict[str, Any], slowest_ms: float, usual_ms: float) -> None:
        """`slowest_ms`: the application's longest command around it; `usual_ms`: in the second before."""
        self.flips.append({**outcome, "slowest_command_ms": slowest_ms, "usual_command_ms": usual_ms})
        if not outcome["flipped"]:
            self.problems.append(f"a flip was refused: {'; '.join(outcome['reasons'])}")

    def take_application(self, final: dict[str, Any]) -> None:
        self.application = final
        for name, what in (("errors", "commands of the application failed"), ("wrong", "replies were wrong")):
            if final[name]:
                self.problems.append(f"{final[name]:,} {what}: {'; '.join(final['texts'][:3])}")

    def take_comparison(self, found: Comparison) -> None:
        self.comparison = found
        different = found.different.total()
        if different:
            some = "; ".join(found.findings[:3])
            self.problems.append(f"both servers compared at rest: {different:,} keys differ: {some}")

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "complete": self.complete,
            "problems": self.problems,
            "seconds": self.seconds,
            "source": self.source,
            "target": self.target,
            "keys_written": self.keys_written,
            "application": self.application,
            "backfill": self.backfill,
            "verifies": self.verifies,
            "flips": self.flips,
            "comparison": _comparison(self.comparison) if self.comparison is not None else {},
        }


def _comparison(found: Comparison) -> dict[str, Any]:
    types = {
        kind: {"source": found.source[kind], "target": found.target[kind], "different": found.different[kind]}
        for kind in found.kinds
    }
    return {
        "keys": {"source": found.source.total(), "target": found.target.total()},
        "different": found.different.total(),
        "findings": found.findings,
        "seconds": found.seconds,
        "types": types,
    }
