"""Walks over the keys of a server for a copy: all of the source's, or those that only the target has.

Owns the pipelining of SCAN: the sizes of one page and the next page are asked for in one go, some pages ahead of the
reads, so that the source never waits for us. Cursors are those of one server process; whose they are is for
`replicate` to know.
"""

from __future__ import annotations

from typing import Any

import hiredis
import trio

from resp.encode import encode

from ..scan import START
from .copier import Copier
from .groups import Probe
from .nurseries import open_nursery
from .pipe import Pipe
from .selection import Selection
from .sides import expect, keyspace
from .tally import Page, Tally

COUNT = 1000  # keys looked at by one SCAN; about 0.3 ms of the server's time
PAGES_AHEAD = 3  # scanned and asked for their sizes, not yet read
MAX_COUNT = 5000  # where the way is long: there is one round trip for every page
COUNT_PER_SECOND = 200_000  # of the round trip


async def walk_source(source: Pipe, target: Pipe, copier: Copier, tally: Tally, selection: Selection) -> None:
    """Give every key that is meant to the copier, from the tally's position on. Errors: ConnectionLost,
    ServerRefuses."""
    began = trio.current_time()
    dbs = await keyspace(source)
    count = min(MAX_COUNT, max(COUNT, int(COUNT_PER_SECOND * (trio.current_time() - began))))
    tally.total = sum(count for db, count in dbs.items() if selection.has_db(db))
    for db in sorted(filter(selection.has_db, dbs)):
        if db not in tally.position.done:
            await target.enter(db)
            cursor = tally.position.cursor if tally.position.db == db else START
            await _walk_db(source, copier, tally, selection, db, cursor, count)


async def _walk_db(
    source: Pipe, copier: Copier, tally: Tally, selection: Selection, db: int, cursor: bytes, page_keys: int
) -> None:
    types = selection.types if len(selection.types) > 1 else frozenset()
    ahead, probed = trio.open_memory_channel[_Probed](PAGES_AHEAD)
    async with open_nursery() as nursery:
        nursery.start_soon(_scan_ahead, source, copier, selection, db, cursor, page_keys, ahead)
        async for cursor, probe, replies in probed:
            page = Page(db, cursor, len(probe.keys), len(probe.keys))
            tally.pages.append(page)
            tally.scanned += len(probe.keys)
            if probe.keys:
                await copier.add(probe, replies, page, types)
            else:
                tally.advance()


_Probed = tuple[bytes, Probe, list[Any]]  # the cursor behind the page, its keys, what was told of them


async def _scan_ahead(
    source: Pipe,
    copier: Copier,
    selection: Selection,
    db: int,
    cursor: bytes,
    page_keys: int,
    ahead: trio.MemorySendChannel[_Probed],
) -> None:
    """Some pages before they are copied, so that the source always has something to do."""
    options = selection.scan_options()
    types = len(selection.types) > 1
    with ahead:
        reply = (await source.send(_scan(cursor, options, page_keys), 1, db).wait())[0]
        while True:
            cursor, keys = expect(reply, "SCAN")
            probe = copier.probe(db, selection.filter(keys), types=types)
            more = cursor != START
            replies: list[Any] = []
            if probe.count or more:
                data = probe.data + _scan(cursor, options, page_keys) * more
                replies = await source.send(data, probe.count + more, db).wait()
            reply = replies.pop() if more else None
            await ahead.send((cursor, probe, replies))
            if not more:
                return


def _scan(cursor: bytes, options: list[bytes], count: int) -> bytes:
    return encode([b"SCAN", cursor, *options, b"COUNT", b"%d" % count])


async def walk_extras(source: Pipe, target: Pipe, copier: Copier, selection: Selection) -> int:
    """Give the copier every key that is on the target and not on the source, or not of a type that is meant: it is
    deleted, if that is still so when it is read. How many there are. Errors: ConnectionLost, ServerRefuses."""
    found = 0
    options = selection.scan_options()
    for db in sorted(filter(selection.has_db, await keyspace(target))):
        cursor = START
        while True:
            reply = (await target.send(_scan(cursor, options, COUNT), 1, db).wait())[0]
            cursor, keys = expect(reply, "SCAN")
            keys = await _of_types(target, selection, db, selection.filter(keys))
            missing = await missing_on(source, selection, db, keys)
            if missing:
                found += len(missing)
                await copier.look_and_add(db, missing)
            if cursor == START:
                break
    return found


async def missing_on(source: Pipe, selection: Selection, db: int, keys: list[bytes]) -> list[bytes]:
    """Which of these keys of the target the source does not have; where types were chosen, not of one of them.
    Errors: ConnectionLost, ServerRefuses."""
    if not keys:
        return []
    types = selection.types
    question = b"TYPE" if types else b"EXISTS"
    told = [expect(reply, "TYPE or EXISTS") for reply in await source.pipeline([[question, key] for key in keys], db)]
    return [key for key, reply in zip(keys, told, strict=True) if (reply not in types if types else reply == 0)]


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
