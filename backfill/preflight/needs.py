"""What crossfade asks of a server, and what becomes of the migration where it is refused. A table; pure.

Each row has a call that changes nothing when it is run (`run`), or one that is only queued in a MULTI and discarded.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Verdict

PROBE_KEY = b"crossfade:preflight"
BOTH = ("source", "target")


@dataclass(frozen=True, slots=True)
class Need:
    """One command. `verdict` is what its refusal means, `why` the consequence, for a person."""

    call: tuple[bytes, ...]
    verdict: Verdict
    why: str
    run: bool = True  # really called; False: queued and discarded, as it would change something
    roles: tuple[str, ...] = BOTH
    since: int = 6  # the major version that has it

    @property
    def name(self) -> str:
        """As an operator knows it: `CLIENT KILL`, `DUMP`."""
        words = 2 if self.call[0] in CONTAINERS else 1
        return b" ".join(self.call[:words]).decode()


CONTAINERS = frozenset([b"ACL", b"CLIENT", b"CONFIG", b"FUNCTION", b"MEMORY", b"OBJECT", b"SCRIPT", b"XINFO"])
KEY = PROBE_KEY
NO_CLIENT = b"9223372036854775807"  # an id that no connection has
PROBLEM, WARNING = Verdict.PROBLEM, Verdict.WARNING
COPY = "keys cannot be copied without it"
CLOCK = "deadlines cannot be carried over exactly without it"
REBUILD = "values are rebuilt type by type instead: exact, but slower"
FENCE = "a lost connection cannot be fenced: a command still under way there may run later; `verify` finds what it did"
SEEN = "the keys that scripts do not declare, evictions and writers that bypass the proxy are found by `verify` only"
SCRIPTS = "scripts that are in use cannot be made known to the other side"
NO_INFO = "a server that was replaced or lost its keys is not noticed"

NEEDS: tuple[Need, ...] = (
    Need((b"PING",), PROBLEM, "a server that hangs is not noticed"),
    Need((b"INFO", b"server"), PROBLEM, NO_INFO),
    Need((b"INFO", b"keyspace"), PROBLEM, NO_INFO),
    Need((b"COMMAND",), PROBLEM, "what the server can do is not known"),
    Need((b"TIME",), PROBLEM, CLOCK),
    Need((b"SCAN", b"0", b"COUNT", b"1"), PROBLEM, "keys cannot be found without it"),
    Need((b"TYPE", KEY), PROBLEM, COPY),
    Need((b"EXISTS", KEY), PROBLEM, COPY),
    Need((b"PTTL", KEY), PROBLEM, CLOCK),
    Need((b"DUMP", KEY), PROBLEM, COPY),
    Need((b"GET", KEY), PROBLEM, COPY),
    Need((b"LRANGE", KEY, b"0", b"0"), PROBLEM, COPY),
    Need((b"SMEMBERS", KEY), PROBLEM, COPY),
    Need((b"ZRANGE", KEY, b"0", b"0"), PROBLEM, COPY),
    Need((b"HGETALL", KEY), PROBLEM, COPY),
    Need((b"XRANGE", KEY, b"-", b"+", b"COUNT", b"1"), PROBLEM, COPY),
    Need((b"OBJECT", b"ENCODING", KEY), PROBLEM, "hashes cannot be rebuilt without it"),
    Need((b"RESTORE", KEY, b"0", b"x", b"REPLACE"), WARNING, REBUILD, run=False),
    Need((b"DEL", KEY), PROBLEM, COPY, run=False),
    Need((b"SET", KEY, b"x"), PROBLEM, COPY, run=False),
    Need((b"APPEND", KEY, b"x"), PROBLEM, COPY, run=False),
    Need((b"RPUSH", KEY, b"x"), PROBLEM, COPY, run=False),
    Need((b"SADD", KEY, b"x"), PROBLEM, COPY, run=False),
    Need((b"ZADD", KEY, b"1", b"x"), PROBLEM, COPY, run=False),
    Need((b"HSET", KEY, b"x", b"x"), PROBLEM, COPY, run=False),
    Need((b"XADD", KEY, b"*", b"x", b"x"), PROBLEM, COPY, run=False),
    Need((b"PEXPIREAT", KEY, b"1"), PROBLEM, CLOCK, run=False),
    Need((b"SCRIPT", b"EXISTS", b"0" * 40), WARNING, SCRIPTS),
    Need((b"SCRIPT", b"LOAD", b"return 1"), WARNING, SCRIPTS, run=False),
    Need((b"FUNCTION", b"LIST"), WARNING, "functions cannot be compared", since=7),
    Need((b"CLIENT", b"ID"), WARNING, FENCE),
    Need((b"CLIENT", b"SETNAME", b"crossfade-preflight"), WARNING, FENCE),
    Need((b"CLIENT", b"LIST"), WARNING, FENCE),
    Need((b"CLIENT", b"KILL", b"ID", NO_CLIENT), WARNING, FENCE),
    Need((b"MODULE", b"LIST"), Verdict.OK, "modules are judged by the commands in use"),
    Need((b"MEMORY", b"USAGE", KEY), Verdict.OK, "big keys are judged by their elements"),
    Need(
        (b"CONFIG", b"GET", b"proto-max-bulk-len"),
        Verdict.OK,
        "the longest value that it takes shows only when one is refused",
    ),
)
"""CLIENT TRACKING, MULTI, HELLO 3 and SELECT take connections and pipelines of their own: see `look`."""
TRACKING = Need((b"CLIENT", b"TRACKING", b"ON", b"BCAST"), WARNING, SEEN)
HELLO = Need((b"HELLO", b"3"), WARNING, "clients that speak RESP3 cannot be served; " + SEEN)
MULTI = Need((b"MULTI",), PROBLEM, "nothing can be copied at one point of the order")
MULTI_KEY = Need(
    (b"SUNION", KEY + b":a", KEY + b":b"),
    PROBLEM,
    "commands on several keys are refused when the keys belong to different shards",
)
