"""What all clients of one Traffic share: counts, findings, and the facts that must add up at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import hiredis

from tests.traffic.templates import EXPECTED_ERRORS

KEPT_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class Statistics:
    commands: int
    expected_errors: int
    disconnects: int
    unexpected: int  # findings, lost connections among them unless they are tolerated
    findings: tuple[str, ...]  # the first few
    longest_ms: float  # longest wait for a reply that should not wait, since the last reset
    by_name: dict[str, int]
    checks: int  # replies compared with the one right answer


class Ledger:
    def __init__(self, *, tolerate_disconnects: bool) -> None:
        self.tolerate_disconnects = tolerate_disconnects
        self.names: Counter[str] = Counter()
        self.expected_errors = 0
        self.disconnects = 0
        self.unexpected = 0
        self.findings: list[str] = []
        self.longest_ms = 0.0
        self.checks = 0
        # Facts. `unsure`: commands whose reply was lost; they may or may not have been executed.
        self.sent: set[bytes] = set()  # pushed, answered or not
        self.pushed: set[bytes] = set()
        self.popped: set[bytes] = set()
        self.totals: set[tuple[int, int]] = set()  # (db, reply) of INCR on one shared counter
        self.watched: Counter[int] = Counter()  # db -> committed WATCH transactions
        self.unsure: Counter[str] = Counter()

    @property
    def commands(self) -> int:
        return self.names.total()

    def statistics(self) -> Statistics:
        return Statistics(
            self.commands,
            self.expected_errors,
            self.disconnects,
            self.unexpected,
            tuple(self.findings),
            round(self.longest_ms, 1),
            dict(self.names),
            self.checks,
        )

    def finding(self, text: str) -> None:
        self.unexpected += 1
        if len(self.findings) < KEPT_FINDINGS:
            self.findings.append(text)

    def lost(self, who: str, text: str) -> None:
        self.disconnects += 1
        if not self.tolerate_disconnects:
            self.finding(f"{who}: connection: {text}")

    def judge(self, who: str, command: Any, reply: Any) -> None:
        """Counts a reply; an error that nothing explains is a finding. Looks into the reply of an EXEC."""
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if any(part in text for part in EXPECTED_ERRORS):
                self.expected_errors += 1
            else:
                self.finding(f"{who}: {_show(command)} -> {text}")
        elif isinstance(reply, list):
            for element in reply:
                if isinstance(element, (hiredis.ReplyError, list)):
                    self.judge(who, command, element)

    def check(self, who: str, what: str, wanted: Any, got: Any) -> None:
        self.checks += 1
        if wanted != got:
            self.finding(f"{who}: {what}: expected {wanted!r}, got {got!r}")

    def pop(self, who: str, token: bytes) -> None:
        self.checks += 1
        if token in self.popped:
            self.finding(f"{who}: job {token!r} was delivered twice")
        self.popped.add(token)

    def total(self, who: str, db: int, reply: int) -> None:
        self.checks += 1
        if (db, reply) in self.totals:
            self.finding(f"{who}: two clients got the same {reply} from one INCR counter in db {db}")
        self.totals.add((db, reply))


def _show(command: Any) -> str:
    return " ".join(repr(word)[:60] for word in command)
