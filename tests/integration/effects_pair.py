"""Two real servers and what is between them: a command on one, its effect on the other, both compared.

A copy is DUMP and RESTORE, or, where the mirror side refuses the payload, a rebuild with ordinary commands.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from proxy.effects import NOTHING, RULES, Context, Effect, compute, same_reply
from resp.catalog import Catalog, server_names
from resp.encode import encode
from tests.equality import Options, Reader, compare_readings
from tests.integration.effects_commands import FAMILIES, Generator
from tests.servers import Server


class Wire:
    """A blocking connection that gives reply frames as they are."""

    def __init__(self, server: Server, db: int = 0, resp: int = 2) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self._file = self._socket.makefile("rb")
        if resp == 3:
            self.frame([b"HELLO", b"3"])
        self.frame([b"SELECT", b"%d" % db])

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def frame(self, args: Sequence[bytes]) -> bytes:
        self._socket.sendall(encode(args))
        return self._frame()

    def call(self, *args: bytes) -> Any:
        reader = hiredis.Reader()
        reader.feed(self.frame(args))
        return reader.gets()

    def _frame(self) -> bytes:
        line = self._file.readline()
        kind = line[:1]
        if kind in b"$=!" and line[1:3] != b"-1":
            return line + self._file.read(int(line[1:]) + 2)
        if kind in b"*~>%":
            return line + b"".join(self._frame() for _ in range(int(line[1:]) * (2 if kind == b"%" else 1)))
        return line


class Pair:
    """The serving and the mirror side, and what is between them."""

    def __init__(self, serving: Server, mirror: Server, seed: int) -> None:
        self.rng = random.Random(seed)
        self.catalog = Catalog.default()
        self.a = {(db, resp): Wire(serving, db, resp) for db in (0, 1) for resp in (2, 3)}
        self.b = {db: Wire(mirror, db) for db in (0, 1)}
        self.clients = [server.client(db) for db in (0, 1) for server in (serving, mirror)]
        for client in self.clients:
            client.response_callbacks.clear()
        self.readers = {db: (Reader(self.clients[2 * db]), Reader(self.clients[2 * db + 1])) for db in (0, 1)}
        self.versions = serving.version, mirror.version
        self.names = [server_names(wire.call(b"COMMAND")) for wire in (self.a[0, 2], self.b[0])]
        self.differed: list[tuple[str, bytes, bytes]] = []  # what happened, the mirror side's command and its answer
        same = serving.version == mirror.version
        self.options = Options(150, stream_counters=same, empty_consumers=True, deleted_pending=True)
        self.effects = 0

    def close(self) -> None:
        for wire in (*self.a.values(), *self.b.values()):
            wire.close()
        for client in self.clients:
            client.close()

    def run(self, count: int, families: Sequence[str] = tuple(FAMILIES)) -> None:
        known = [name for name in families if self._covers(name)]
        generate = Generator(self.rng, known, _now_ms, self._ids, self._dump)
        for _ in range(count):
            self.step(generate(), self.rng.choice((0, 0, 0, 1)))
        self.compare_all()

    def unexplained(self) -> list[str]:
        """Differences that were found and repaired, but should not have been there. Another version or vendor may
        refuse options that it does not know; 6.2 still claims deleted messages, and with JUSTID does not say so."""
        (vendor, *version), (vendor_b, *version_b) = self.versions
        upward = vendor == vendor_b and version <= version_b
        claims_deleted = version < [7, 0] <= version_b
        return [
            story
            for story, name, got in self.differed
            if not (got[:1] == b"-" and not upward) and not (name == b"XCLAIM" and claims_deleted)
        ]

    def _covers(self, family: str) -> bool:
        both = self.names[0] & self.names[1]
        return {"field deadlines": b"HPEXPIREAT" in both, "vectors": b"VADD" in both}.get(family, True)

    def _ids(self, key: bytes) -> list[bytes]:
        """Of entries, and of pending entries, deleted ones among them."""
        found: list[bytes] = []
        for question in ((b"XRANGE", key), (b"XPENDING", key, b"g1"), (b"XPENDING", key, b"g2")):
            answer = self.a[0, 2].call(*question, b"-", b"+", *([b"99"] if len(question) > 2 else []))
            found += [item[0] for item in answer] if isinstance(answer, list) else []
        return found

    def _dump(self) -> bytes:
        key = self.a[0, 2].call(b"RANDOMKEY")
        return (key and self.a[0, 2].call(b"DUMP", key)) or b"nothing"

    # -- one command ------------------------------------------------------------------------------------------------

    def step(self, args: list[bytes], db: int = 0) -> None:
        resp = self.rng.choice((2, 3))
        spec = self.catalog.lookup(args)
        rule = RULES.get(spec.name)
        sent = rule.rewrite(args) if rule is not None and rule.rewrite is not None else args
        frame = self.a[db, resp].frame(sent)
        context = Context(db, resp, _now_ms(), self.names[0], self.names[1], self.versions[0], self.versions[1])
        effect = compute(spec, sent, frame, context)
        story = f"db {db} {sent} -> {frame!r}: {effect}"
        assert not effect.unmirrored, story
        assert {key for _, key in effect.copies}.isdisjoint(effect.keys), story
        self.effects += effect is not NOTHING
        self._apply(db, effect, story)
        places = {(db, key) for key in spec.keys(args)} | set(effect.copies)
        self.compare(places, story)

    def _apply(self, db: int, effect: Effect, story: str) -> None:
        mirror = self.b[db]
        if effect.was_absent:
            assert [mirror.call(b"PTTL", key) for key in effect.guard] == [-2] * len(effect.guard), story
        replies = [mirror.frame(command) for command in effect.commands]
        for command, expected, got in zip(effect.commands, effect.expected, replies, strict=True):
            if got[:1] == b"-" if expected is None else not same_reply(expected, got):
                self.differed.append((f"{story}\n  mirror: {replies}", command[0], got))
                self._copy([(db, key) for key in effect.keys])
                break
        self._copy(effect.copies)

    def _copy(self, places: Sequence[tuple[int, bytes]]) -> None:
        for db, key in places:
            source, mirror = self.a[db, 2], self.b[db]
            payload, pttl = source.call(b"DUMP", key), source.call(b"PTTL", key)
            mirror.call(b"DEL", key)
            if payload is None:
                continue
            ttl = b"%d" % max(0, pttl)
            answer = mirror.call(b"RESTORE", key, ttl, payload)
            if isinstance(answer, hiredis.ReplyError):
                rebuild(source, mirror, key)
                if pttl > 0:
                    mirror.call(b"PEXPIRE", key, ttl)

    def compare(self, places: set[tuple[int, bytes]], story: str) -> None:
        for db, key in places:
            here, there = (reader.read([key])[0] for reader in self.readers[db])
            if here.kind == there.kind == "vectorset":  # its DUMP has the links between vectors, which are random
                assert vectors(self.a[db, 2], key) == vectors(self.b[db], key), story
                continue
            found = compare_readings(here, there, self.options)
            assert found is None, f"{key!r} in db {db}: {found}\nafter {story}\n{here}\n{there}"
            if here.kind == "string":  # the comparison leaves a HyperLogLog's cached count out
                assert here.value == there.value, story
            if here.kind == "stream":
                assert same_deliveries(self.a[db, 2], self.b[db], key), story

    def compare_all(self) -> None:
        keys = {(db, key) for db, readers in self.readers.items() for reader in readers for key in reader.keys()}  # noqa: SIM118 (no dict)
        self.compare(keys, "the end")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def vectors(wire: Wire, key: bytes) -> dict[bytes, Any]:
    members = wire.call(b"VRANDMEMBER", key, b"99")
    return {member: (wire.call(b"VEMB", key, member), wire.call(b"VGETATTR", key, member)) for member in members}


def same_deliveries(serving: Wire, mirror: Wire, key: bytes) -> bool:
    """Whether pending entries were delivered at the same time, by the one clock of this machine."""
    for group in (b"g1", b"g2"):
        question = (b"XPENDING", key, group, b"-", b"+", b"99")
        here, there = serving.call(*question), mirror.call(*question)
        if isinstance(here, list) and any(abs(x[2] - y[2]) > 300 for x, y in zip(here, there, strict=True)):
            return False
    return True


# -- a copy for sides that refuse each other's DUMP -------------------------------------------------------------------


def rebuild(source: Wire, mirror: Wire, key: bytes) -> None:
    kind = source.call(b"TYPE", key)
    for command in REBUILD[kind](source, key):
        answer = mirror.call(*command)
        assert not isinstance(answer, hiredis.ReplyError), (command, answer)


def _hash(source: Wire, key: bytes) -> list[list[bytes]]:
    flat = source.call(b"HGETALL", key)
    commands = [[b"HSET", key, *flat]]
    fields = flat[::2]
    moments = source.call(b"HPEXPIRETIME", key, b"FIELDS", b"%d" % len(fields), *fields)
    if isinstance(moments, list):
        timed = [(field, moment) for field, moment in zip(fields, moments, strict=True) if moment > 0]
        commands += [[b"HPEXPIREAT", key, b"%d" % moment, b"FIELDS", b"1", field] for field, moment in timed]
    return commands


def _stream(source: Wire, key: bytes) -> list[list[bytes]]:
    info = source.call(b"XINFO", b"STREAM", key)
    last = info[info.index(b"last-generated-id") + 1]
    entries = dict(source.call(b"XRANGE", key, b"-", b"+"))
    groups = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in source.call(b"XINFO", b"GROUPS", key)]
    pending = {group[b"name"]: source.call(b"XPENDING", key, group[b"name"], b"-", b"+", b"999") for group in groups}
    deleted = {item[0] for items in pending.values() for item in items} - entries.keys()
    # A deleted entry can be claimed only while it is there: added here, deleted again in the end.
    every = sorted(entries.keys() | deleted, key=lambda ident: [*map(int, ident.split(b"-"))])
    commands = [[b"XADD", key, ident, *entries.get(ident, [b"f", b"v"])] for ident in every]
    if not commands:
        commands = [[b"XADD", key, b"MAXLEN", b"0", b"0-1", b"f", b"v"]]
    for group in groups:
        name = group[b"name"]
        commands.append([b"XGROUP", b"CREATE", key, name, group[b"last-delivered-id"]])
        for consumer in source.call(b"XINFO", b"CONSUMERS", key, name):
            commands.append([b"XGROUP", b"CREATECONSUMER", key, name, consumer[1]])
        for ident, owner, idle, count in pending[name]:
            tail = (b"IDLE", b"%d" % idle, b"RETRYCOUNT", b"%d" % count, b"FORCE", b"JUSTID")
            commands.append([b"XCLAIM", key, name, owner, b"0", ident, *tail])
    return [*commands, *([b"XDEL", key, ident] for ident in deleted), [b"XSETID", key, last]]


REBUILD: dict[bytes, Callable[[Wire, bytes], list[list[bytes]]]] = {
    b"string": lambda wire, key: [[b"SET", key, wire.call(b"GET", key)]],
    b"list": lambda wire, key: [[b"RPUSH", key, *wire.call(b"LRANGE", key, b"0", b"-1")]],
    b"set": lambda wire, key: [[b"SADD", key, *wire.call(b"SMEMBERS", key)]],
    b"zset": lambda wire, key: [
        [b"ZADD", key, *reversed(wire.call(b"ZREVRANGE", key, b"0", b"-1", b"WITHSCORES"))],
    ],
    b"hash": _hash,
    b"stream": _stream,
}
