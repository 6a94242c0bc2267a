"""Walks over the keys of a server for a copy: all of the source's, or those that only the target has.

Owns the pipelining of SCAN: the sizes of one page and the next page are asked for in one go, behind the reads of the
page before, so that the source never waits for us. Cursors are those of one server process; whose they are is for
`replicate` to know.
"""

from __future__ import annotations

import hiredis

from resp.encode import encode

from ..scan import START
from .copier import Copier
from .pipe import Pipe
from .selection import Selection
from .sides import expect, keyspace
from .tally import Page, Tally

COUNT = 1000  # keys looked at by one SCAN; about 0.3 ms of the server's time


async def walk_source(source: Pipe, target: Pipe, copier: Copier, tally: Tally, selection: Selection) -> None:
    """Give every key that is meant to the copier, from the tally's position on. Errors: ConnectionLost,
    ServerRefuses."""
    dbs = await keyspace(source)
    tally.total = sum(count for db, count in dbs.items() if selection.has_db(db))
    for db in sorted(filter(selection.has_db, dbs)):
        if db not in tally.position.done:
            await target.enter(db)
            cursor = tally.position.cursor if tally.position.db == db else START
            await _walk_db(source, copier, tally, selection, db, cursor)


async def _walk_db(source: Pipe, copier: Copier, tally: Tally, selection: Selection, db: int, cursor: bytes) -> None:
    options = selection.scan_options()
    types = selection.types if len(selection.types) > 1 else frozenset()
    reply = (await source.send(_scan(cursor, options), 1, db).wait())[0]
    while True:
        cursor, keys = expect(reply, "SCAN")
        keys = selection.filter(keys)
        page = Page(db, cursor, len(keys), len(keys))
        tally.pages.append(page)
        tally.scanned += len(keys)
        probe = copier.probe(db, keys, types=bool(types))
        more = cursor != START
        replies = []
        if keys or more:
            replies = await source.send(probe.data + _scan(cursor, options) * more, probe.count + more, db).wait()
        if keys:
            await copier.add(probe, replies[: probe.count], page, types)
        else:
            tally.advance()
        if not more:
            return
        reply = replies[-1]


def _scan(cursor: bytes, options: list[bytes]) -> bytes:
    return encode([b"SCAN", cursor, *options, b"COUNT", b"%d" % COUNT])


async def walk_extras(source: Pipe, target: Pipe, copier: Copier, selection: Selection) -> int:
    """Give the copier every key that is on the target and not on the source: it is deleted, if the source still does
    not have it when it is read. How many there are. Errors: ConnectionLost, ServerRefuses."""
    found = 0
    options = selection.scan_options()
    for db in sorted(filter(selection.has_db, await keyspace(target))):
        cursor = START
        while True:
            reply = (await target.send(_scan(cursor, options), 1, db).wait())[0]
            cursor, keys = expect(reply, "SCAN")
            keys = await _of_types(target, selection, db, selection.filter(keys))
            there = await source.pipeline([[b"EXISTS", key] for key in keys], db) if keys else []
            missing = [key for key, count in zip(keys, there, strict=True) if expect(count, "EXISTS") == 0]
            if missing:
                found += len(missing)
                await copier.look_and_add(db, missing)
            if cursor == START:
                break
    return found


async def _of_types(target: Pipe, selection: Selection, db: int, keys: list[bytes]) -> list[bytes]:
    if len(selection.types) < 2 or not keys:
        return keys
    kinds = await target.pipeline([[b"TYPE", key] for key in keys], db)
    return [key for key, kind in zip(keys, kinds, strict=True) if kind in selection.types]


async def copy_functions(source: Pipe, target: Pipe, tally: Tally) -> bytes | None:
    """Put the source's libraries onto the target, in place of those of the same name; their payload, None where there
    are none. Errors: ConnectionLost."""
    payload, names = await source.pipeline([[b"FUNCTION", b"DUMP"], [b"FUNCTION", b"LIST"]])
    if isinstance(payload, hiredis.ReplyError) or not isinstance(names, list) or not names:
        return None
    reply = await target.call(b"FUNCTION", b"RESTORE", payload, b"REPLACE")
    if isinstance(reply, hiredis.ReplyError):
        text = "functions of the source are not on the target"
        tally.note(f"{len(names)} libraries with {text}: {reply}")
        tally.failed.setdefault((-1, b"FUNCTION"), f"{len(names)} libraries: {reply}")
    else:
        tally.failed.pop((-1, b"FUNCTION"), None)
    assert isinstance(payload, bytes)
    return payload
