"""What preflight knows: facts about the servers, and the verdicts drawn from them. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from backfill.url import Url


class Verdict(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # the migration works; know this
    PROBLEM = "problem"  # mend this first


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: a fact in one line and, unless it is fine, what to do."""

    name: str
    verdict: Verdict
    fact: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "verdict": self.verdict.value, "fact": self.fact, "advice": self.advice}


@dataclass(frozen=True, slots=True)
class Look:
    """What one server told about itself. What it refused to tell is empty, and named in `refused`."""

    role: str  # "source" or "target"
    url: Url
    info: Mapping[str, str]  # every line of INFO, all sections
    commands: frozenset[bytes] = frozenset()  # upper-case names; subcommands (>= 7.0) as b"XGROUP CREATE"
    used: Mapping[bytes, int] = field(default_factory=dict)  # calls by command since the server began, as `commands`
    modules: Mapping[str, str] = field(default_factory=dict)  # name -> version
    config: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    libraries: int = 0  # of functions
    refused: Mapping[str, str] = field(default_factory=dict)  # command line -> the server's error
    not_allowed: Mapping[bytes, str] = field(default_factory=dict)  # commands in use that our user may not run
    dbs: frozenset[int] = frozenset()  # that SELECT accepts, of those asked for
    merged_dbs: frozenset[int] = frozenset()  # of them: those that show the keys of the URL's db
    offset_ms: float = 0.0  # the server's clock minus ours
    uncertainty_ms: float = 0.0
    pings_ms: tuple[float, ...] = ()
    tls: str = ""  # version and cipher; empty without TLS
    certificate_days: float | None = None  # until it expires; None: not checked, or no TLS

    @property
    def product(self) -> str:
        return "valkey" if "valkey_version" in self.info else "redis"

    @property
    def version(self) -> tuple[int, int]:
        """(major, minor) of the product, (0, 0) where it is not told."""
        text = self.info.get("valkey_version") or self.info.get("redis_version") or ""
        numbers = [int(part) for part in text.split(".")[:2] if part.isdigit()]
        return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)

    @property
    def sizes(self) -> dict[int, int]:
        """The dbs that have keys, and how many."""
        lines = {name[2:]: facts for name, facts in self.info.items() if name.startswith("db")}
        return {
            int(db): int(facts[5:].partition(",")[0])
            for db, facts in lines.items()
            if db.isdigit() and facts.startswith("keys=")
        }

    def number(self, name: str) -> int:
        """A number from INFO; 0 where it is not told."""
        text = self.info.get(name, "")
        return int(text) if text.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Big:
    """One of the largest keys seen."""

    db: int
    key: bytes
    kind: str
    size: int  # bytes, or elements where MEMORY USAGE is refused

    def __str__(self) -> str:
        return f"db {self.db} {self.key[:60]!r} ({self.kind})"


@dataclass(slots=True)
class Sample:
    """What a look at the source's keys has found."""

    seen: int = 0
    total: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # TYPE -> keys
    biggest: list[Big] = field(default_factory=list)
    in_bytes: bool = True  # sizes are bytes, not elements
    restored: dict[str, str] = field(default_factory=dict)  # TYPE -> "" (RESTORE took its DUMP) or the error
    losses: dict[str, int] = field(default_factory=dict)  # what the target cannot hold -> keys
    problem: str = ""  # why it was cut short
