"""Which scripts the applications use, so that the mirror side knows them before a flip (invariant 7). Pure."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

LEARNT = frozenset([b"EVAL", b"EVAL_RO", b"EVALSHA", b"EVALSHA_RO", b"SCRIPT LOAD", b"SCRIPT FLUSH"])
MAX_SCRIPTS = 2000  # more than that is an application that generates scripts; the oldest are forgotten
MAX_BODY_BYTES = 256 * 1024  # a longer body is hashed and passed on, but not kept for a reconnect
MAX_BYTES = 32 * 1024 * 1024  # of all bodies kept


class Scripts:
    """Bodies seen in EVAL and SCRIPT LOAD, and digests used by EVALSHA."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()
        self._used: OrderedDict[bytes, None] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Scripts known={len(self._bodies)} used={len(self._used)}>"

    def learn(self, name: bytes, args: list[bytes], *, ok: bool) -> bytes | None:
        """Take in an answered command; the body to load on the mirror side when it is new."""
        if name == b"SCRIPT FLUSH" and ok:
            self._bodies.clear()
            self._bytes = 0
            self._used.clear()
        elif name in (b"EVALSHA", b"EVALSHA_RO") and len(args) > 1 and ok:
            self._use(args[1].lower())
        elif name in (b"EVAL", b"EVAL_RO") and len(args) > 1:
            return self._body(args[1])
        elif name == b"SCRIPT LOAD" and ok:
            self._body(args[2])  # mirrored as sent
        return None

    def _body(self, body: bytes) -> bytes | None:
        digest = hashlib.sha1(body, usedforsecurity=False).hexdigest().encode()
        if digest in self._bodies:
            return None
        self._bodies[digest] = kept = body if len(body) <= MAX_BODY_BYTES else b""
        self._bytes += len(kept)
        while len(self._bodies) > MAX_SCRIPTS or self._bytes > MAX_BYTES:
            self._bytes -= len(self._bodies.popitem(last=False)[1])
        return body

    def _use(self, digest: bytes) -> None:
        self._used[digest] = None
        if len(self._used) > MAX_SCRIPTS:
            self._used.popitem(last=False)

    def body(self, digest: bytes) -> bytes:
        """What the digest stands for; nothing where that was not seen, or is too long to be kept."""
        return self._bodies.get(digest.lower(), b"")

    def bodies(self) -> list[bytes]:
        """What a mirror side that has restarted must be told again."""
        return [body for body in self._bodies.values() if body]

    def used(self) -> list[bytes]:
        """Digests that must be known on the other side before it serves."""
        return list(self._used)
