"""Which commands a server has carried out, from its INFO commandstats, and which of them another server lacks. Pure.

What Lua scripts and MULTI blocks ran is counted there as well, which nobody sees from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OWN_BUSINESS = frozenset(  # of replicas, operators and crossfade itself: says nothing about applications
    b"PSYNC SYNC REPLCONF REPLICAOF SLAVEOF SHUTDOWN DEBUG MONITOR LATENCY SLOWLOG CONFIG CLUSTER MODULE BGSAVE SAVE "
    b"BGREWRITEAOF LASTSAVE FAILOVER ACL INFO COMMAND MEMORY CLIENT HELLO AUTH FUNCTION "
    b"PEXPIRETIME HPEXPIRETIME".split()
)


def info_lines(reply: Any) -> dict[str, str]:
    """The lines of an INFO reply; none of a refusal."""
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def commands_used(reply: Any) -> dict[bytes, int]:
    """Calls that were carried out, by upper-case name, of an INFO commandstats reply; subcommands (since 7.0) as
    b"XGROUP CREATE". A line is `cmdstat_xgroup|create:calls=3,usec=…,failed_calls=1`."""
    found = {}
    for line, text in info_lines(reply).items():
        facts = dict(part.partition("=")[::2] for part in text.split(","))
        calls = int(facts.get("calls", 0)) - int(facts.get("failed_calls", 0))
        if line.startswith("cmdstat_") and calls > 0:
            found[line[8:].replace("|", " ").upper().encode()] = calls
    return found


def unknown_there(used: Mapping[bytes, int], commands: Iterable[bytes]) -> dict[bytes, int]:
    """Of the commands in use, those that a server with these commands does not know; the most used first. Servers
    before 7.0 list no subcommands: then their container is all that can be known."""
    known = frozenset(commands)
    listed = {name.split()[0] for name in known if b" " in name}
    if not known:
        return {}

    def there(name: bytes) -> bool:
        container = name.split()[0]
        return name in known or (container in known and container not in listed)

    unknown = {name: calls for name, calls in used.items() if not there(name) and name.split()[0] not in OWN_BUSINESS}
    return dict(sorted(unknown.items(), key=lambda item: (-item[1], item[0])))
