"""Effects read like a conversation: `did("SET k v EX 10", OK)` is the effect of that command with that reply."""

from __future__ import annotations

from typing import Any

from proxy.effects import Context, Effect, compute
from resp.catalog import Catalog

NOW = 1_700_000_000_000
CATALOG = Catalog.default()
OLD = frozenset(  # the mirror side of the tests that want one without field deadlines, functions and vector sets
    b"SET DEL PEXPIREAT PERSIST HSET HDEL HINCRBYFLOAT XADD XCLAIM XACK XGROUP XREADGROUP LPOP RPOP FLUSHALL".split()
)
OK, NIL, NULL, ZERO, ONE = b"+OK\r\n", b"$-1\r\n", b"_\r\n", b":0\r\n", b":1\r\n"
ERROR = b"-ERR no\r\n"


def words(command: str | list[bytes]) -> list[bytes]:
    return command.encode().split() if isinstance(command, str) else command


def did(command: str | list[bytes], reply: bytes, **context: Any) -> Effect:
    args = words(command)
    chosen = {"db": 0, "resp": 2, "now_ms": NOW} | context
    return compute(CATALOG.lookup(args), args, reply, Context(**chosen))


def sent(effect: Effect) -> list[str]:
    """The commands as text."""
    return [b" ".join(command).decode() for command in effect.commands]


def copied(effect: Effect) -> list[str]:
    """Keys copied in db 0; with another db as db/key."""
    assert not effect.commands
    return [(f"{db}/" if db else "") + key.decode() for db, key in effect.copies]


def array(*parts: bytes, kind: str = "*") -> bytes:
    count = len(parts) // 2 if kind == "%" else len(parts)
    return b"%b%d\r\n%b" % (kind.encode(), count, b"".join(parts))


def bulk(text: str | bytes) -> bytes:
    value = text.encode() if isinstance(text, str) else text
    return b"$%d\r\n%b\r\n" % (len(value), value)


def bulks(*texts: str) -> bytes:
    return array(*map(bulk, texts))


def number(value: int) -> bytes:
    return b":%d\r\n" % value


def double(text: str) -> bytes:
    return b",%b\r\n" % text.encode()
