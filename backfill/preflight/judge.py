"""From what two servers told to verdicts, each with what to do. Pure.

One small function for each question; `CHECKS` is their order on the screen. What a server did not tell is never taken
for good news: it becomes a warning, or a fact that says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from statistics import median

from backfill.commandstats import unknown_there

from .model import Check, Look, Sample, Verdict
from .needs import HELLO, MULTI, MULTI_KEY, NEEDS, TRACKING, Need

Checks = Iterator[Check]
OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM

OLDEST = (6, 2)  # what crossfade is tested with, both products
TIGHT = 0.8  # of the target's memory: beyond it there is no room for growth during the migration
SKEW_MS = 1000.0  # between the two clocks: deadlines are translated, but applications may compare
UNSURE_MS = 50.0  # of the measured offset: so far deadlines on the two sides may be apart
SLOW_SOURCE_MS = 2.0  # p50 of a PING: every command of every client waits for it
SLOW_TARGET_MS = 50.0  # the target's distance delays nobody before the flip, but everybody after it
CERTIFICATE_DAYS = 30
BIG_BYTES = 32 * 1024 * 1024  # of one key: it is noticed by others while it is copied
BIG_ELEMENTS = 1_000_000
BUNDLED = frozenset(["lua", "vectorset"])  # what a server lists as a module though nobody loaded it
CORE_TYPES = frozenset(["string", "list", "set", "zset", "hash", "stream"])
LOCAL = ("127.0.0.1", "localhost", "::1")
RESERVES = ("maxmemory_reservation", "maxfragmentationmemory_reservation")  # INFO of Azure Cache for Redis


def judge(source: Look, target: Look, sample: Sample) -> list[Check]:
    """All verdicts, in the order in which a person wants to read them."""
    return [finding for check in CHECKS for finding in check(source, target, sample)]


# -- the two servers ---------------------------------------------------------------------------------------------------


def _versions(source: Look, target: Look, sample: Sample) -> Checks:
    for side in (source, target):
        old = side.version < OLDEST
        yield Check(
            f"{side.role} version",
            WARNING if old else OK,
            _named(side),
            "crossfade is tested with Redis 6.2 to 8.2 and Valkey 8.1 to 9.1: rehearse with a copy first"
            if old
            else "",
        )
    same = source.info.get("run_id") and source.info.get("run_id") == target.info.get("run_id")
    if same:
        yield Check("two servers", PROBLEM, "source and target are the same server", "give two different URLs")


def _named(side: Look) -> str:
    version = side.info.get("valkey_version") or side.info.get("redis_version") or "of unknown version"
    mode = f", run_id {side.info['run_id'][:8]}" if side.info.get("run_id") else ""
    return f"{side.product} {version} at {side.url.address}{mode}"


def _role(source: Look, target: Look, sample: Sample) -> Checks:
    for side in (source, target):
        if side.info.get("role") == "slave":
            master = f"{side.info.get('master_host')}:{side.info.get('master_port')}"
            yield Check(
                f"{side.role} role",
                PROBLEM,
                f"it is a replica of {master} and refuses writes",
                "give the URL of the primary",
            )


def _cluster(source: Look, target: Look, sample: Sample) -> Checks:
    for side in (source, target):
        if side.info.get("cluster_enabled") == "1":
            yield Check(
                f"{side.role} cluster mode",
                PROBLEM,
                "it runs in cluster mode: one connection does not reach all keys",
                "use a single endpoint (Azure Managed Redis: cluster policy Enterprise, or non-clustered)",
            )
        elif "CROSSSLOT" in side.refused.get(MULTI_KEY.name, ""):
            yield Check(
                f"{side.role} cluster mode",
                PROBLEM,
                f"it refuses commands on keys of different slots: {side.refused[MULTI_KEY.name]}",
                "use a non-clustered instance, or make sure that no application uses several keys in one command",
            )
        else:
            yield Check(f"{side.role} cluster mode", OK, "off")


def _dbs(source: Look, target: Look, sample: Sample) -> Checks:
    used = source.sizes
    told = ", ".join(f"{db} ({keys:,} keys)" for db, keys in used.items()) or "none"
    if "INFO" in source.refused:
        yield Check(
            "dbs", WARNING, "the source does not tell which dbs are in use", "make sure that the target has them"
        )
        return
    missing = sorted(set(used) - target.dbs)
    merged = sorted(target.merged_dbs)
    if missing:
        yield Check(
            "dbs",
            PROBLEM,
            f"the source uses db {told}; the target does not have db {_numbers(missing)}",
            "raise `databases` on the target, or choose one that allows them; nothing of these dbs can be copied",
        )
    elif merged:
        yield Check(
            "dbs",
            PROBLEM if set(used) - {target.url.db} else WARNING,
            f"the target takes SELECT {_numbers(merged)} and stays in db {target.url.db}",
            "choose a target with real dbs: the keys of all dbs would end up in one",
        )
    else:
        yield Check("dbs", OK, f"in use: {told}; the target has db {_numbers(sorted(target.dbs))}")


def _numbers(dbs: list[int]) -> str:
    """0-15, 20"""
    spans: list[list[int]] = []
    for db in dbs:
        if spans and spans[-1][-1] == db - 1:
            spans[-1].append(db)
        else:
            spans.append([db])
    return ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)


def _empty(source: Look, target: Look, sample: Sample) -> Checks:
    keys = sum(target.sizes.values())
    if keys:
        yield Check(
            "target empty",
            PROBLEM,
            f"it has {keys:,} keys in db {_numbers(sorted(target.sizes))}",
            "empty it; or start the proxy with --allow-non-empty, and keys that the source does not have are deleted",
        )
    else:
        yield Check("target empty", OK, "yes")


# -- memory ------------------------------------------------------------------------------------------------------------


def _memory(source: Look, target: Look, sample: Sample) -> Checks:
    if not source.number("used_memory") or "used_memory" not in target.info:
        yield Check(
            "memory", WARNING, "INFO memory does not tell enough", "compare the sizes in the services' own consoles"
        )
        return
    needed = max(0, source.number("used_memory") - source.number("used_memory_startup"))
    limit, reserve = _limit(target)
    free = limit - reserve - target.number("used_memory")
    fact = f"the source's data take {_bytes(needed)}; the target has {_bytes(max(0, free))} free"
    fact += f" of {_bytes(limit)}" + (f", {_bytes(reserve)} of them reserved" if reserve else "")
    if not target.number("maxmemory"):
        fact += " (no maxmemory: the machine's memory)"
    if not limit:
        yield Check(
            "memory", WARNING, fact, "the target tells neither maxmemory nor its machine's memory: compare by hand"
        )
    elif needed > free:
        yield Check("memory", PROBLEM, fact, "choose a larger target (or raise maxmemory): it would run out of memory")
    elif needed > free * TIGHT:
        yield Check(
            "memory", WARNING, fact, "tight: other versions encode differently, and data grow during a migration"
        )
    else:
        yield Check("memory", OK, fact)


def _limit(target: Look) -> tuple[int, int]:
    """What the target may use, and what of it is not for data."""
    limit = target.number("maxmemory") or target.number("total_system_memory")
    reserve = sum(target.number(name) for name in RESERVES)
    if not reserve:  # where CONFIG is allowed; megabytes
        names = ("maxmemory-reserved", "maxfragmentationmemory-reserved")
        reserve = sum(int(text) * 2**20 for name in names if (text := target.config.get(name, "")).isdigit())
    return limit, reserve


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"


def _eviction(source: Look, target: Look, sample: Sample) -> Checks:
    ours, theirs = (side.info.get("maxmemory_policy", "") for side in (source, target))
    evicts = bool(source.number("maxmemory")) and ours != "noeviction"
    if not ours or not theirs:
        yield Check("eviction", WARNING, "maxmemory_policy is not told", "look at it in the services' own consoles")
        return
    fact = f"the source's policy is {ours}, the target's {theirs}"
    evicted = source.number("evicted_keys")
    if evicted:
        fact += f"; the source has evicted {evicted:,} keys so far"
    if not target.number("maxmemory"):
        yield Check("eviction", OK, f"{fact}; without maxmemory nothing is evicted there")
    elif theirs == "noeviction" and evicts:
        yield Check(
            "eviction",
            WARNING,
            fact,
            f"a full target will refuse writes where the source evicts: set {ours} there as well",
        )
    elif theirs.startswith("allkeys") and not evicts:
        yield Check(
            "eviction", PROBLEM, fact, "the target may evict keys that the source keeps for good: set noeviction there"
        )
    elif theirs != "noeviction" and theirs != ours:
        yield Check("eviction", WARNING, fact, "the target may evict other keys than the source: set the same policy")
    else:
        yield Check("eviction", OK, fact)


# -- what is allowed ---------------------------------------------------------------------------------------------------


def _needs(source: Look, target: Look, sample: Sample) -> Checks:
    """What crossfade itself needs; refusals with one consequence in one line."""
    table = [*NEEDS, TRACKING, HELLO, MULTI]
    for side in (source, target):
        by_why: dict[tuple[str, Verdict], list[Need]] = defaultdict(list)
        for need in table:
            if need.name in side.refused:
                by_why[need.why, need.verdict].append(need)
        for (why, verdict), needs in by_why.items():
            names = ", ".join(dict.fromkeys(need.name for need in needs))
            error = side.refused[needs[0].name]
            yield Check(
                f"{side.role} commands", verdict, f"refused: {names} ({_short(error)})", _advice(why, error, verdict)
            )
        if not by_why:
            yield Check(f"{side.role} commands", OK, "everything that crossfade needs is allowed")


def _advice(why: str, error: str, verdict: Verdict) -> str:
    if verdict is OK:
        return why
    if error.startswith("READONLY"):
        return f"{why}; it is a replica, or set to read-only: give the URL of the primary"
    if error.startswith(("OOM", "MISCONF")):
        return f"{why}; mend that first"
    if error.startswith("NOPERM") and " key" in error and " run " not in error:
        return f"{why}; allow our user all keys (ACL SETUSER … ~*)"
    return f"{why}; allow it to our user, if the service lets you" if error.startswith("NOPERM") else why


def _rights(source: Look, target: Look, sample: Sample) -> Checks:
    for side in (source, target):
        denied = sorted(side.not_allowed)
        who = f"user {side.user or side.url.user or 'default'}"
        if not denied:
            yield Check(f"{side.role} rights", OK, f"{who} may run every command that is in use")
            continue
        yield Check(
            f"{side.role} rights",
            PROBLEM,
            f"{who} may not run {_names(denied)}, which applications use",
            "the proxy sends the applications' commands as this user: allow them, or give another user in the URL",
        )


def _in_use(source: Look, target: Look, sample: Sample) -> Checks:
    if not source.used:
        yield Check(
            "commands in use",
            WARNING,
            "INFO commandstats does not tell which commands are in use",
            "compare what your applications use with the target's documentation",
        )
        return
    if unknown := unknown_there(source.used, target.commands):
        counted = [f"{name.decode(errors='replace')} ({calls:,} calls)" for name, calls in unknown.items()]
        yield Check(
            "commands in use",
            PROBLEM,
            f"the target does not know {_listed(counted)}",
            "applications that use them will get errors after the flip: change these, or choose another target",
        )
    elif target.commands:
        yield Check("commands in use", OK, f"the target knows all {len(source.used)} of them")


def _modules(source: Look, target: Look, sample: Sample) -> Checks:
    missing = sorted(set(source.modules) - set(target.modules) - BUNDLED)
    foreign = {kind: count for kind, count in sample.kinds.items() if kind not in CORE_TYPES}
    refused = {kind: sample.restored[kind] for kind in foreign if sample.restored.get(kind)}
    for kind, error in refused.items():
        yield Check(
            "types",
            PROBLEM,
            f"{foreign[kind]:,} keys seen of type {kind}, which the target refuses: {_short(error)}",
            "these keys cannot be copied: give the target the module (or version) that has this type, or remove them",
        )
    if missing:
        yield Check(
            "modules",
            WARNING,
            f"the source has modules that the target lacks: {', '.join(missing)}",
            "if applications use them, choose a target that has them",
        )
    elif not refused:
        told = ", ".join(sorted(set(source.modules) - BUNDLED)) or "none"
        yield Check("modules", OK, f"on the source: {told}")


def _functions(source: Look, target: Look, sample: Sample) -> Checks:
    if not source.libraries:
        return
    there = b"FUNCTION" in target.commands
    yield Check(
        "functions",
        WARNING if there else PROBLEM,
        f"the source has {source.libraries} function libraries" + ("" if there else "; the target knows no FUNCTION"),
        "load them on the target before the flip (FUNCTION LOAD through the proxy, or FUNCTION DUMP and RESTORE)"
        if there
        else "applications that call them will fail there: choose a target of version 7.0 or newer",
    )


# -- data --------------------------------------------------------------------------------------------------------------


def _restore(source: Look, target: Look, sample: Sample) -> Checks:
    refused = sorted(kind for kind, error in sample.restored.items() if error and kind in CORE_TYPES)
    if refused:
        yield Check(
            "values",
            WARNING,
            f"the target refuses the source's DUMP of {', '.join(refused)}: {_short(sample.restored[refused[0]])}",
            "nothing to do: they are rebuilt by ordinary commands, which is exact, but slower",
        )
    elif sample.restored:
        yield Check("values", OK, f"the target takes the source's DUMP of {', '.join(sorted(sample.restored))}")
    for text, count in sample.losses.items():
        yield Check(
            "values",
            PROBLEM,
            f"{count:,} keys seen with something that the target cannot hold: {text}",
            "choose a newer target",
        )


def _big(source: Look, target: Look, sample: Sample) -> Checks:
    seen = f"{sample.seen:,} of {sample.total:,} keys looked at"
    if sample.problem:
        yield Check("big keys", WARNING, f"{seen}, then: {sample.problem}", "run preflight again")
    if not sample.biggest:
        yield Check("big keys", OK, seen)
        return
    unit = _bytes if sample.in_bytes else (lambda size: f"{size:,.0f} elements")
    limit = int(text) if (text := target.config.get("proto-max-bulk-len", "")).isdigit() else 0
    biggest = sample.biggest[0]
    fact = f"{seen}; the biggest is {biggest}: {unit(biggest.size)}"
    big = [one for one in sample.biggest if one.size > (BIG_BYTES if sample.in_bytes else BIG_ELEMENTS)]
    if limit and any(one.kind == "string" and one.size > limit for one in sample.biggest if sample.in_bytes):
        yield Check(
            "big keys", PROBLEM, fact, f"the target takes {_bytes(limit)} at most: raise proto-max-bulk-len there"
        )
    elif big:
        yield Check(
            "big keys",
            WARNING,
            f"{fact}; " + _listed([f"{one} {unit(one.size)}" for one in big[1:]]) if big[1:] else fact,
            "others may notice when such a key is copied: a quiet hour is better, or split them (--all-keys sees all)",
        )
    else:
        yield Check("big keys", OK, fact)


# -- time --------------------------------------------------------------------------------------------------------------


def _clock(source: Look, target: Look, sample: Sample) -> Checks:
    unsure = source.uncertainty_ms + target.uncertainty_ms
    if unsure == float("inf"):
        yield Check("clocks", WARNING, "TIME is refused", "deadlines may be off by the difference of the clocks")
        return
    skew = target.offset_ms - source.offset_ms
    fact = f"the target's clock is {abs(skew):.1f} ms {'ahead' if skew > 0 else 'behind'} (± {unsure:.1f} ms)"
    if abs(skew) > SKEW_MS + unsure:
        yield Check("clocks", WARNING, fact, "deadlines are translated, so nothing is lost; but have the clocks mended")
    elif unsure > UNSURE_MS:
        yield Check("clocks", WARNING, fact, "deadlines may be apart by as much: run the proxy closer to both servers")
    else:
        yield Check("clocks", OK, fact)


def _latency(source: Look, target: Look, sample: Sample) -> Checks:
    for side, slow in ((source, SLOW_SOURCE_MS), (target, SLOW_TARGET_MS)):
        p50, worst = median(side.pings_ms), max(side.pings_ms)
        fact = f"PING takes {p50:.2f} ms (p50 of {len(side.pings_ms)}; at most {worst:.1f} ms)"
        advice = "run this, and the proxy, in the same region and zone: every command waits for this round trip"
        bad = p50 > slow
        yield Check(f"{side.role} latency", WARNING if bad else OK, fact, advice if bad else "")


def _tls(source: Look, target: Look, sample: Sample) -> Checks:
    for side in (source, target):
        name, url = f"{side.role} TLS", side.url
        if not side.tls:
            plain = bool(url.path) or url.host in LOCAL
            yield Check(
                name,
                OK if plain else WARNING,
                "no TLS" + (" (local)" if plain else ""),
                "" if plain else "password and data can be read on the way: use rediss://, if the server offers it",
            )
        elif url.insecure:
            yield Check(
                name,
                WARNING,
                f"{side.tls}, certificate not checked (insecure)",
                "give the authority's certificate: ca=FILE",
            )
        elif side.certificate_days is not None and side.certificate_days < CERTIFICATE_DAYS:
            yield Check(
                name,
                WARNING,
                f"{side.tls}, the certificate expires in {side.certificate_days:.0f} days",
                "have it renewed",
            )
        else:
            yield Check(name, OK, f"{side.tls}, certificate checked")


# -- words -------------------------------------------------------------------------------------------------------------


def _short(error: str) -> str:
    return " ".join(error.split())[:120]


def _names(names: Iterable[bytes]) -> str:
    return _listed([name.decode(errors="replace") for name in names])


def _listed(texts: list[str], most: int = 8) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


CHECKS: tuple[Callable[[Look, Look, Sample], Checks], ...] = (
    _versions,
    _role,
    _cluster,
    _dbs,
    _empty,
    _memory,
    _eviction,
    _needs,
    _rights,
    _in_use,
    _modules,
    _functions,
    _restore,
    _big,
    _clock,
    _latency,
    _tls,
)
