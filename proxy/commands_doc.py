"""docs/commands.md: every command of the catalog, how it is routed and mirrored, and what an operator should know.

Owns how the tables that decide (resp.table, the effect rules, the proxy's own answers) are put into words, the order of
the page, and the notes that follow from no table. `render` is pure; `main` writes the page, from a clone: the replies
that may differ from a server's own are listed where they are tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from proxy.effects import RULES
from proxy.local import ANSWERS
from resp.catalog import Catalog, Route, Spec

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
DIFFERENCES = "tests.differential.differences"

Difference = tuple[str, str, str]  # commands, what is compared in place of the bytes, reason

# Every command of our table, containers with all of their subcommands
GROUPS: dict[str, str] = {
    "Keys": """
        COPY DEL DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME KEYS MIGRATE MOVE OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME
        PTTL RANDOMKEY RENAME RENAMENX RESTORE RESTORE-ASKING SCAN SORT SORT_RO TOUCH TTL TYPE UNLINK""",
    "Strings": """
        APPEND DECR DECRBY DELEX DELIFEQ DIGEST GET GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT LCS MGET MSET
        MSETEX MSETNX PSETEX SET SETEX SETNX SETRANGE STRALGO STRLEN SUBSTR""",
    "Bitmaps": "BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS GETBIT SETBIT",
    "HyperLogLogs": "PFADD PFCOUNT PFDEBUG PFMERGE PFSELFTEST",
    "Lists": """
        BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH LINDEX LINSERT LLEN LMOVE LMPOP LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET
        LTRIM RPOP RPOPLPUSH RPUSH RPUSHX""",
    "Sets": """
        SADD SCARD SDIFF SDIFFSTORE SINTER SINTERCARD SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SPOP SRANDMEMBER
        SREM SSCAN SUNION SUNIONSTORE""",
    "Sorted sets": """
        BZMPOP BZPOPMAX BZPOPMIN ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER ZINTERCARD ZINTERSTORE ZLEXCOUNT
        ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM
        ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
        ZUNION ZUNIONSTORE""",
    "Geo": """
        GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH
        GEOSEARCHSTORE""",
    "Hashes": """
        HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET
        HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL
        HVALS""",
    "Streams": """
        XACK XACKDEL XADD XAUTOCLAIM XCFGSET XCLAIM XDEL XDELEX XGROUP XIDMPRECORD XINFO XLEN XPENDING XRANGE XREAD
        XREADGROUP XREVRANGE XSETID XTRIM""",
    "Vector sets": "VADD VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VREM VSETATTR VSIM",
    "Scripts and functions": "EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO FUNCTION SCRIPT",
    "Transactions": "DISCARD EXEC MULTI UNWATCH WATCH",
    "Publish and subscribe": """
        PSUBSCRIBE PUBLISH PUBSUB PUNSUBSCRIBE SPUBLISH SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE""",
    "Connection": "AUTH CLIENT ECHO HELLO HOST: PING POST QUIT RESET SELECT WAIT WAITAOF",
    "Cluster": "ASKING CLUSTER CLUSTERSCAN READONLY READWRITE",
    "Administration": """
        ACL BGREWRITEAOF BGSAVE COMMAND COMMANDLOG CONFIG DBSIZE DEBUG FAILOVER FLUSHALL FLUSHDB HOTKEYS INFO LASTSAVE
        LATENCY LOLWUT MEMORY MODULE MONITOR PSYNC REPLCONF REPLICAOF ROLE SAVE SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC
        TIME""",
}

LANE = "lane"
OWN = "own connection"
ROUTED: dict[Route, str] = {
    Route.READ: LANE,
    Route.WRITE: LANE,
    Route.INFO: "lane, with a section about the proxy",
    Route.PUBLISH: "lane, behind subscriptions asked for before",
    Route.SCRIPT: "lane, while changes of undeclared keys are watched",
    Route.CURSOR: "lane; continued on the side that gave the cursor",
    Route.BLOCKING: "lane, non-blocking form behind writes",
    Route.PUBSUB: OWN,
    Route.LOCAL: "answered by the proxy",
    Route.PINNED: OWN,
    Route.REFUSED: "refused",
}
ROUTED_BY_NAME: dict[str, str] = {
    "XREAD": "lane; with BLOCK: non-blocking form behind writes",
    "XREADGROUP": "lane; with BLOCK: non-blocking form behind writes",
    "MULTI": "lane, when its whole block is there and may go there; else own connection",
    "WATCH": OWN,
    "EXEC": "where its MULTI went",
    "DISCARD": "where its MULTI went",
    "UNWATCH": "where its WATCH went",
}

NOTHING = "nothing"
NOT_EXECUTED = "–"  # noqa: RUF001 (a dash, in a table)
COPIED = "state copy of its keys"
UNLISTED = "like a command that is not listed"
BLOCK = "lane: the effects of its commands as one MULTI/EXEC; own connection: state copies"

OWN_CLIENTS = "of the proxy's own clients"
KEPT = "kept by the proxy, the server is not told"
SERVING_ONLY = "acts on the serving side alone"
MADE_ANEW = "made anew after a flip"
UNDECLARED = "keys written without being declared are seen by the watch, and copied; where it is refused, by verify"
LOADED = "the script is made known to the mirror side"
USED = "the gate of a flip asks whether the mirror side knows the script"
EXACT = "`~` is forwarded as `=` without LIMIT, for servers trim differently"
STAYS = "the connection stays with the client, whom a flip disconnects"
WHOLE = "on an own connection: a new backfill is due"

# What follows from no table; by name, or by container for those of its subcommands that have a connection of their own
NOTES: dict[str, str] = {
    "ACL": f"{SERVING_ONLY}; clients log in at the proxy, with the source's user and password",
    "ASKING": STAYS,
    "AUTH": "the source's user and password, as the proxy was given them",
    "CLIENT GETNAME": KEPT,
    "CLIENT ID": "the proxy's number for the connection",
    "CLIENT INFO": f"{OWN_CLIENTS}; fields without a meaning for a proxy are 0",
    "CLIENT KILL": OWN_CLIENTS,
    "CLIENT LIST": f"{OWN_CLIENTS}; fields without a meaning for a proxy are 0",
    "CLIENT NO-EVICT": "accepted, without effect",
    "CLIENT NO-TOUCH": "accepted, without effect",
    "CLIENT REPLY": "the proxy withholds the replies, the server is not told",
    "CLIENT SETINFO": KEPT,
    "CLIENT SETNAME": KEPT,
    "CLIENT TRACKING": f"{MADE_ANEW}; RESP3 clients are told then to forget what they have cached",
    "CLIENT UNBLOCK": OWN_CLIENTS,
    "CONFIG": SERVING_ONLY,
    "DEBUG": SERVING_ONLY,
    "EVAL": f"{LOADED}; {UNDECLARED}",
    "EVALSHA": f"{USED}; {UNDECLARED}",
    "EVALSHA_RO": USED,
    "EVAL_RO": LOADED,
    "FCALL": UNDECLARED,
    "FLUSHALL": WHOLE,
    "FLUSHDB": WHOLE,
    "HELLO": "the serving side's own fields, with the proxy's number for the connection",
    "HOST:": "the server hangs up, and so does the proxy",
    "MONITOR": f"shows what the serving side is sent, the proxy's own commands included; {MADE_ANEW}",
    "MULTI": "refused inside: AUTH, HELLO, MONITOR, CLIENT …, and what is refused outside",
    "POST": "the server hangs up, and so does the proxy",
    "PSUBSCRIBE": MADE_ANEW,
    "READONLY": STAYS,
    "READWRITE": STAYS,
    "SELECT": "the answer is the serving side's",
    "SSUBSCRIBE": MADE_ANEW,
    "SUBSCRIBE": MADE_ANEW,
    "SWAPDB": WHOLE,
    "WATCH": "after a flip in between, EXEC answers nil",
    "XADD": EXACT,
    "XTRIM": EXACT,
}

HEAD = """\
<!-- Generated from resp/table.py, proxy/effects, proxy/commands_doc.py and the differential test's list of differences.
     Do not edit: change those, then run `make docs` (python -m proxy.commands_doc). -->

# Commands

Every command of Redis 6.2, 7.0, 8.2 and Valkey 8.1, 9.1: where the proxy sends it, what becomes of it on the mirror
side, and what an operator should know. What the serving side does not know, it answers with its own error.

**Routed** says which connection a command takes.

* *lane*: the one connection that all clients share; the order of its replies is the order of execution.
* *non-blocking form behind writes*: the command is tried in the lane, and again directly behind every write to one of
  its keys, until it is served or its time is up. First come, first served. A slow poll finds what others push to the
  serving side.
* *own connection*: one that the client has to himself until it carries no state any more (an open MULTI, WATCH,
  subscriptions, tracking). Until then his lane commands take it, too.
* *answered by the proxy*: it is about the client's connection, which is one to the proxy.
* *refused*: answered with the error in the notes, not executed.

**Mirrored** says what the mirror side is sent, once the serving side's reply is there. A command that answers an error
is not mirrored, unless the table says so.

* *same reply expected*: the mirror side's reply is compared with the serving side's; if it differs, the key is dirty
  and is copied. Where another command is sent its own success is expected: an SREM must remove every member.
* *expiry guard*: the command builds on what the key held, so the mirror side is asked for the key's TTL first. A key
  that is missing there, or about to expire, is copied.
* *state copy*: the key is read in the lane, at a known point of the order, and what was read is written on the mirror
  side.
* *PXAT, PEXPIREAT, HPEXPIREAT, ABSTTL*: relative times have become deadlines in the mirror side's clock.

Everywhere: a command or an option that the mirror side does not know becomes a state copy. A write that took an own
connection becomes a state copy, whatever the table says; messages, scripts and libraries are sent as in the table.

A command that is **not listed** (a module's, or a newer server's) takes an own connection. Unless the server calls it
read-only it is a write: its keys, as the server's `COMMAND` describes them, are state-copied; without such keys it is
counted as unmirrored in `crossfade status`, and the connection stays with the client, whom a flip disconnects.
"""

TAIL = """\
## Where replies may differ

The differential test sends the same calls to a server and, through the proxy, to another server of the same version,
and compares the replies byte by byte, in RESP2 and RESP3. These are the exceptions. A name such as CLUSTER stands for
all of its subcommands.

| Commands | Compared instead | Why |
|---|---|---|
"""


class Row(NamedTuple):
    """One line of a table, names apart: commands that have all of it in common share the line."""

    routed: str
    mirrored: str
    notes: str


def render(catalog: Catalog, differences: Iterable[Difference]) -> str:
    """The page. Raises ValueError for a command that GROUPS does not have."""
    tables = [f"## {title}\n\n{_table(catalog, specs)}" for title, specs in _grouped(catalog)]
    return "\n".join([HEAD, *tables, TAIL + _lines(differences)])


def _grouped(catalog: Catalog) -> Iterator[tuple[str, list[Spec]]]:
    """The commands of each group, by name."""
    left = {spec.name: spec for spec in catalog}
    for title, words in GROUPS.items():
        wanted = set(words.encode().split())
        yield title, [left.pop(name) for name in sorted(left) if name.split(b" ")[0] in wanted]
    if left:
        raise ValueError(f"GROUPS does not have {', '.join(name.decode() for name in left)}")


def _table(catalog: Catalog, specs: Sequence[Spec]) -> str:
    containers = {spec.name.split(b" ")[0] for spec in specs if b" " in spec.name}
    rows: dict[Row, list[str]] = {}
    for spec in specs:
        for label, row in _container(catalog, spec) if spec.name in containers else _plain(spec):
            rows.setdefault(row, []).append(label)
    lines = ((", ".join(labels), *row) for row, labels in rows.items())
    return "| Commands | Routed | Mirrored | Notes |\n|---|---|---|---|\n" + _lines(lines)


def _plain(spec: Spec) -> Iterator[tuple[str, Row]]:
    yield f"`{spec.name.decode()}`", Row(routed(spec), mirrored(spec), notes(spec))


def _container(catalog: Catalog, bare: Spec) -> Iterator[tuple[str, Row]]:
    """The name alone, which is an error or a read to every server; then a subcommand that is not in our table."""
    name = bare.name.decode()
    other = catalog.lookup([bare.name, b"?"])
    yield f"`{name}` alone", Row(routed(bare), NOTHING, "")
    effect = mirrored(other) if other.route is Route.REFUSED else UNLISTED
    yield f"`{name}` with any other word", Row(routed(other), effect, notes(other))


def _lines(rows: Iterable[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def routed(spec: Spec) -> str:
    """Which connection it takes."""
    if spec.route is Route.LOCAL and spec.name not in ANSWERS:
        return OWN
    return ROUTED_BY_NAME.get(spec.name.decode()) or ROUTED[spec.route]


def mirrored(spec: Spec) -> str:
    """What the mirror side is sent."""
    if spec.route is Route.REFUSED:
        return NOT_EXECUTED
    if not spec.writes:
        return BLOCK if spec.name == b"EXEC" else NOTHING
    rule = RULES.get(spec.name)
    return COPIED if rule is None or spec.route is Route.PINNED else rule.text


def notes(spec: Spec) -> str:
    """The error of a refused command, else what NOTES has."""
    name = spec.name.decode()
    if spec.route is Route.REFUSED:
        return f"`ERR {spec.refusal.replace(name, '…', 1)}`"
    inherited = NOTES.get(name.split(" ")[0], "") if spec.route is Route.PINNED else ""
    return NOTES.get(name, inherited)


def page() -> str:
    """The page as it has to be now. Only in a clone: the differences are the tests'."""
    return render(Catalog.default(), import_module(DIFFERENCES).documented())


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
