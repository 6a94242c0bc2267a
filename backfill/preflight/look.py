"""Asks one server everything that preflight wants to know of it. A door: it decides nothing.

To the source nothing is ever written. On the target one key with a random name and a deadline is set for a moment, to
see whether its dbs are really apart.
"""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backfill.client import Client, ReplyError, command_names
from backfill.commandstats import commands_used, info_lines
from backfill.errors import BackfillError
from backfill.url import Url

from .model import Look
from .needs import HELLO, MULTI, MULTI_KEY, NEEDS, PROBE_KEY, TRACKING, Need

NAME = "crossfade-preflight"
REPLY_SECONDS = 10.0
PINGS = 30  # one after the other
CLOCK_SAMPLES = 8
FIRST_DBS = 16  # Redis' default number of dbs
TEMPORARY_MS = 60_000  # the probe key's life, should we die before it is deleted


async def look(url: Url, role: str, *, used: Iterable[bytes] = (), dbs: Iterable[int] = ()) -> Look:
    """Everything about one server. `used`: commands that will be sent there besides our own, with what the server
    itself says is in use; `dbs`: that must be there. Errors: ConnectError, ConnectionLost."""
    async with Client.open(url, name=NAME, reply_timeout=REPLY_SECONDS) as client:
        table = _list(await client.call(b"COMMAND"))
        info = {**client.wire.server, **info_lines(await client.call(b"INFO"))}
        in_use = commands_used(await client.call(b"INFO", b"commandstats"))
        refused = await _refusals(client, role, info)
        may_queue = MULTI.name not in refused
        accepted, merged = await _dbs(client, url, {*range(FIRST_DBS), *dbs}, probe=role == "target" and may_queue)
        offset, uncertainty = await _clock(client)
        modules, config, user, libraries = await _extras(client)
        tls, days = _tls(client, url)
        return Look(
            role=role,
            url=url,
            info=info,
            commands=command_names(table),
            used=in_use,
            modules=modules,
            config=config,
            user=user,
            libraries=libraries,
            refused={**refused, **await _tracking(url)},
            not_allowed=await _not_allowed(client, table, {*in_use, *used}) if may_queue else {},
            dbs=frozenset(accepted),
            merged_dbs=frozenset(merged),
            offset_ms=offset,
            uncertainty_ms=uncertainty,
            pings_ms=await _pings(client),
            tls=tls,
            certificate_days=days,
        )


# -- what it refuses ---------------------------------------------------------------------------------------------------


async def _refusals(client: Client, role: str, info: Mapping[str, str]) -> dict[str, str]:
    """The needs that the server refuses, with its error."""
    major = int(info.get("redis_version", "7").partition(".")[0] or 7)
    needs = [need for need in NEEDS if role in need.roles and need.since <= major]
    called = [need for need in needs if need.run]
    found = _errors(called, await client.pipeline([need.call for need in called]))
    found |= _errors([MULTI_KEY], [await client.call(*MULTI_KEY.call)])
    replies = await client.pipeline([[b"MULTI"], [b"PING"], [b"EXEC"]])
    if replies[-1] != [b"PONG"]:
        return {**found, MULTI.name: str(next((r for r in replies if isinstance(r, ReplyError)), replies[-1]))}
    queued = [need for need in needs if not need.run]
    return {**found, **_errors(queued, await _queue(client, [need.call for need in queued]))}


def _errors(needs: Sequence[Need], replies: Sequence[Any]) -> dict[str, str]:
    return {
        need.name: str(reply)
        for need, reply in zip(needs, replies, strict=True)
        if isinstance(reply, ReplyError) and not str(reply).startswith("LOADING")
    }


async def _queue(client: Client, calls: Sequence[Sequence[bytes]]) -> list[Any]:
    """What each call is answered in a MULTI that is discarded: the server judges it, and does not run it."""
    return (await client.pipeline([[b"MULTI"], *calls, [b"DISCARD"]]))[1:-1]


async def _tracking(url: Url) -> dict[str, str]:
    """Whether RESP3 and CLIENT TRACKING are there, on a connection of their own."""
    try:
        async with Client.open(url, name=NAME, resp=3, reply_timeout=REPLY_SECONDS) as client:
            prefix = PROBE_KEY + secrets.token_hex(8).encode()
            return _errors([TRACKING], [await client.call(*TRACKING.call, b"PREFIX", prefix)])
    except BackfillError as problem:
        return {HELLO.name: problem.text}


async def _not_allowed(client: Client, table: list[Any], names: set[bytes]) -> dict[bytes, str]:
    """Commands on keys, of those named, that our user may not run."""
    calls = {name: call for name, call in _calls(table) if name in names}
    replies = await _queue(client, list(calls.values()))
    return {
        name: str(reply)
        for name, reply in zip(calls, replies, strict=True)
        if isinstance(reply, ReplyError) and str(reply).startswith("NOPERM") and " run " in str(reply)
    }


def _calls(table: list[Any]) -> Iterable[tuple[bytes, list[bytes]]]:
    """Every command that has keys, with the shortest call that its arity allows. Nothing without a key is ever tried,
    not even in a MULTI: FLUSHALL would be too high a price for a relay that takes MULTI lightly."""
    for name, arity, flags, first, *_ in table:
        marks = {flag if isinstance(flag, bytes) else str(flag).encode() for flag in flags}
        if first > 0 or (b"movablekeys" in marks and b"admin" not in marks):
            yield name.upper(), [name.upper(), *[PROBE_KEY] * (abs(arity) - 1)]


# -- what it tells -----------------------------------------------------------------------------------------------------


def _list(reply: Any) -> list[Any]:
    return reply if isinstance(reply, list) else []


async def _extras(client: Client) -> tuple[dict[str, str], dict[str, str], str, int]:
    """Modules, memory settings, our user's name, function libraries; each as far as it is told."""
    modules, config, user, functions = await client.pipeline(
        [[b"MODULE", b"LIST"], [b"CONFIG", b"GET", b"*max*"], [b"ACL", b"WHOAMI"], [b"FUNCTION", b"LIST"]]
    )
    pairs = [_pairs(module) for module in _list(modules)]
    return (
        {pair.get("name", "?"): pair.get("ver", "") for pair in pairs},
        _pairs(config),
        user.decode(errors="replace") if isinstance(user, bytes) else "",
        len(_list(functions)),
    )


def _pairs(flat: Any) -> dict[str, str]:
    texts = [part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in _list(flat)]
    return dict(zip(texts[::2], texts[1::2], strict=False))


async def _dbs(client: Client, url: Url, wanted: set[int], *, probe: bool) -> tuple[set[int], set[int]]:
    """Which dbs SELECT accepts, and which of them are in truth the URL's own (some services take every number)."""
    dbs = sorted(wanted - {url.db})
    key = PROBE_KEY + b":" + secrets.token_hex(8).encode()
    set_there = probe and await client.call(b"SET", key, b"", b"PX", b"%d" % TEMPORARY_MS) == b"OK"
    try:
        commands = [command for db in dbs for command in ([b"SELECT", b"%d" % db], [b"EXISTS", key])]
        replies = await client.pipeline(commands)
    finally:
        await client.call(b"SELECT", b"%d" % url.db)
        if set_there:
            await client.call(b"DEL", key)
    answers = list(zip(dbs, replies[::2], replies[1::2], strict=True))
    accepted = {db for db, selected, _ in answers if not isinstance(selected, ReplyError)}
    merged = {db for db, _, exists in answers if db in accepted and exists == 1}
    return accepted | {url.db}, merged


async def _clock(client: Client) -> tuple[float, float]:
    """The server's clock minus ours, and how wrong that may be (half a round trip), in ms: the best of some."""
    best = (0.0, float("inf"))
    for _ in range(CLOCK_SAMPLES):
        sent = time.time() * 1000
        reply = await client.call(b"TIME")
        received = time.time() * 1000
        if isinstance(reply, list) and (received - sent) / 2 < best[1]:
            server = int(reply[0]) * 1000 + int(reply[1]) / 1000
            best = (server - (sent + received) / 2, (received - sent) / 2)
    return best


async def _pings(client: Client) -> tuple[float, ...]:
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await client.call(b"PING")
        times.append((time.perf_counter() - began) * 1000)
    return tuple(times)


def _tls(client: Client, url: Url) -> tuple[str, float | None]:
    """What the connection is protected by, and for how many days its certificate is good."""
    tls = client.wire.tls
    if tls is None:
        return "", None
    cipher = tls.cipher()
    certificate = {} if url.insecure else tls.getpeercert() or {}
    expires = certificate.get("notAfter")
    days = (ssl.cert_time_to_seconds(expires) - time.time()) / 86400 if isinstance(expires, str) else None
    return f"{tls.version()} {cipher[0] if cipher else ''}".strip(), days
