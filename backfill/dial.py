"""Owns the way from a URL to a connection that is open, encrypted, authenticated, named and in its db.

A door. What it refuses to know: reconnecting, timeouts after the handshake, what the connection is for.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import hiredis
import trio

from resp.encode import encode

from .errors import ConnectError, ConnectKind
from .tls import start_tls, tls_error
from .url import Url
from .wire import Wire

__all__ = ["ConnectError", "Wire", "connect"]

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_IDLE_S = 60  # below the idle limits of the usual load balancers (Azure: 4 minutes)
STAGE_CONNECTED = " (connected, but it does not reply)"
MAX_TEXT = 200  # of a server's error that is passed on


async def connect(url: Url, *, timeout: float = CONNECT_TIMEOUT_S, name: str | None = None, resp: int = 2) -> Wire:
    """A connection ready for commands, speaking RESP version `resp`; all of it within `timeout` seconds.
    Errors: ConnectError."""
    stage = ""
    with trio.move_on_after(timeout):
        sock = await _open(url)
        try:
            stage = " (connected, but no TLS handshake: is it a TLS port?)" if url.tls else STAGE_CONNECTED
            wire = await start_tls(sock, url) if url.tls else Wire(sock)
            stage = STAGE_CONNECTED
            await _enter(wire, url, name, resp)
        except BaseException:
            sock.close()
            raise
        return wire
    raise ConnectError("timeout", f"no answer from {url.address} within {timeout:g} s{stage}")


# --- the socket ---


async def _open(url: Url) -> socket.socket:
    try:
        stream = await (trio.open_unix_socket(url.path) if url.path else trio.open_tcp_stream(url.host, url.port))
    except OSError as error:
        raise _open_error(url, error) from None
    sock = socket.socket(fileno=stream.socket.detach())
    if not url.path:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    return sock


def _open_error(url: Url, error: OSError) -> ConnectError:
    if isinstance(error, socket.gaierror):
        return ConnectError("dns", f"the host name {url.host} cannot be resolved")
    cause = error.__cause__  # trio tries every address and collects what happened
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    number = cause.errno if isinstance(cause, OSError) else error.errno
    if number == errno.ECONNREFUSED:
        return ConnectError("refused", f"connection refused by {url.address}")
    kind: ConnectKind = "timeout" if number == errno.ETIMEDOUT else "refused"
    return ConnectError(kind, f"cannot connect to {url.address}: {os.strerror(number) if number else 'unreachable'}")


# --- the Redis handshake: one send, one answer each ---

Check = Callable[[Wire, Any], str | None]  # an error text when the connection is unusable


def _handshake(url: Url, name: str | None, resp: int) -> Iterable[tuple[list[bytes], Check]]:
    """The commands in order, each with what its reply must be. HELLO, CLIENT and INFO may be forbidden by an ACL
    or unknown to a relay: only what was asked for explicitly has to succeed."""
    if url.password or url.user:
        yield [b"AUTH", *([url.user.encode()] if url.user else []), url.password.encode()], _must_succeed
    yield [b"HELLO", b"%d" % resp], _must_succeed if resp != 2 else _note_hello
    if name:
        yield [b"CLIENT", b"SETNAME", name.encode()], _may_fail
    yield [b"CLIENT", b"ID"], _note_id
    if url.db:
        yield [b"SELECT", b"%d" % url.db], _must_succeed
    yield [b"INFO", b"server"], _note_info
    yield [b"PING"], _must_answer


async def _enter(wire: Wire, url: Url, name: str | None, resp: int) -> None:
    steps = list(_handshake(url, name, resp))
    reader = hiredis.Reader(notEnoughData=NotImplemented)
    try:
        await wire.send(b"".join(encode(command) for command, _ in steps))
        for command, check in steps:
            reply = await _reply(wire, reader, url)
            if (text := check(wire, reply)) is not None:
                raise _refusal(url, command[0].decode(), text)
    except ssl.SSLError as error:  # TLS 1.3: a refused client certificate shows at the first read
        raise tls_error(url, error) from None
    except OSError:
        raise _hung_up(url) from None
    except hiredis.ProtocolError:
        raise ConnectError("protocol", f"{url.address} does not answer as a Redis does") from None


async def _reply(wire: Wire, reader: hiredis.Reader, url: Url) -> Any:
    while (reply := reader.gets()) is NotImplemented:
        data = await wire.receive()
        if not data:
            raise _hung_up(url)
        reader.feed(data)
    return reply


def _hung_up(url: Url) -> ConnectError:
    if url.tls:  # since TLS 1.3 a missing or refused client certificate shows only now, and not always as an alert
        hint = "refuse the client certificate" if url.cert_file else "want a client certificate: cert=FILE, key=FILE"
        return ConnectError("tls", f"{url.address} closed the connection after the TLS handshake (does it {hint}?)")
    hint = "" if url.path else " (does it want TLS: rediss://?)"
    return ConnectError("protocol", f"{url.address} closed the connection instead of answering{hint}")


def _must_succeed(wire: Wire, reply: Any) -> str | None:
    _note_hello(wire, reply)
    return str(reply) if isinstance(reply, hiredis.ReplyError) else None


def _may_fail(wire: Wire, reply: Any) -> str | None:
    return _fatal(reply)


def _must_answer(wire: Wire, reply: Any) -> str | None:
    """Without AUTH in the URL this is where a missing password shows. LOADING, MASTERDOWN... are for the caller;
    so is a PING that an ACL forbids: the user did get in."""
    return _fatal(reply)


def _note_hello(wire: Wire, reply: Any) -> str | None:
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2], strict=False))
    if isinstance(reply, dict) and isinstance(version := reply.get(b"version"), bytes):
        key = "valkey_version" if reply.get(b"server") == b"valkey" else "redis_version"
        wire.server = {**wire.server, key: version.decode("ascii", "replace")}
    return _fatal(reply)


def _note_id(wire: Wire, reply: Any) -> str | None:
    if isinstance(reply, int):
        wire.client_id = reply
    return _fatal(reply)


def _note_info(wire: Wire, reply: Any) -> str | None:
    if isinstance(reply, bytes):
        lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
        wire.server = {**wire.server, **{name: value for name, colon, value in lines if colon}}
    return _fatal(reply)


def _fatal(reply: Any) -> str | None:
    """The texts after which nothing else will work on this connection."""
    text = str(reply) if isinstance(reply, hiredis.ReplyError) else ""
    return text if text.startswith(("NOAUTH", "DENIED")) or "max number of clients" in text else None


# What the server said (its beginning, or a part) -> the kind of failure and what to tell.
REFUSALS: tuple[tuple[str, ConnectKind, str], ...] = (
    ("NOAUTH", "auth", "{at} wants a password: give it in the URL, redis://[USER]:PASSWORD@HOST"),
    ("WRONGPASS", "auth", "{at} refused the user name or password"),
    ("invalid password", "auth", "{at} refused the user name or password"),
    ("without any password configured", "auth", "{at} has no password set, but the URL gives one"),
    ("DENIED", "refused", "{at} runs in protected mode and refuses connections from other machines"),
    ("max number of clients", "refused", "{at} has reached its limit of clients"),
    ("DB index is out of range", "protocol", "{at} has no db {db}"),
)


def _refusal(url: Url, command: str, text: str) -> ConnectError:
    for words, kind, told in REFUSALS:
        if words in text:
            return ConnectError(kind, told.format(at=url.address, db=url.db))
    kind = "auth" if command == "AUTH" else "protocol"
    return ConnectError(kind, f"{url.address} refused {command}: {_one_line(text, url)}")


def _one_line(text: str, url: Url) -> str:
    for secret in filter(None, (url.password, url.user)):  # servers do not echo them; relays might
        text = text.replace(secret, "***")
    return " ".join(text.split())[:MAX_TEXT]
