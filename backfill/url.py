"""Owns the address of a server: what may be written in a URL and what it means. Opens nothing, reads no file.

Invariant: no password in `str()`, `repr()` or an error. The texts below quote only the parts that cannot hold one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from .errors import BackfillError

DEFAULT_PORT = 6379
TCP, TLS, UNIX = "redis", "rediss", "unix"
SCHEMES = {"redis": TCP, "valkey": TCP, "rediss": TLS, "valkeys": TLS, "unix": UNIX, "redis+unix": UNIX}
EXAMPLE = "redis://[user:password@]host:port/db, rediss://... for TLS, or unix:///path?db=0"


class UrlError(BackfillError):
    """A URL that cannot be used; `text` is one line that says what to do, without secrets."""


@dataclass(frozen=True, slots=True, repr=False)
class Url:
    """Where a server is and how to get in. `path` is not empty for a unix socket, and only then."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    db: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.tls and self.path:
            raise UrlError("TLS over a unix socket is not supported: use unix://PATH or rediss://HOST")
        if self.key_file and not self.cert_file:
            raise UrlError("a client key needs its certificate: add cert=FILE")
        if not self.tls and (self.ca_file or self.cert_file or self.server_name or self.insecure):
            raise UrlError("ca, cert, key, server_name and insecure need TLS: write rediss://")

    @property
    def address(self) -> str:
        """`host:port`, `[v6]:port` or the path of the socket: for messages."""
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_db(self, db: int) -> Url:
        """The same server, another db."""
        return replace(self, db=db)

    def __str__(self) -> str:
        userinfo = ""
        if self.user or self.password:
            userinfo = quote(self.user, safe="") + (":***" if self.password else "") + "@"
        if self.path:
            return f"unix://{userinfo}{self.path}" + (f"?db={self.db}" if self.db else "")
        return f"{TLS if self.tls else TCP}://{userinfo}{self.address}/{self.db}"

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"


def parse_url(text: str) -> Url:
    """The address that `text` names; errors: UrlError. User and password are percent-decoded; as redis-cli has it, a
    part before "@" without a colon is a password, and a password may hold "/" or "@" unescaped."""
    text = text.strip()
    try:
        unquote(text, errors="strict").encode()
    except UnicodeError:
        raise UrlError("a server URL is UTF-8 text, and so is what is written in it as %XX") from None
    name, separator, rest = text.partition("://")
    scheme = SCHEMES.get(name.lower())
    if not separator or scheme is None:
        raise UrlError(_not_a_url(text, name if separator else ""))
    rest, user, password = _take_userinfo(rest)
    location, _, query = rest.partition("?")
    options = _options(query)
    if scheme == UNIX:
        if not location.startswith("/"):
            raise UrlError("a unix socket needs an absolute path: unix:///path/to/redis.sock")
        return Url(path=unquote(location), user=user, password=password, **options)  # type: ignore[arg-type]
    authority, _, path = location.partition("/")
    host, port = _host_and_port(authority)
    if path:
        if "db" in options:
            raise UrlError("the db is given twice: once in the path, once as db=")
        options["db"] = _db(path.rstrip("/"))
    return Url(host=host, port=port, user=user, password=password, tls=scheme == TLS, **options)  # type: ignore[arg-type]


def _not_a_url(text: str, scheme: str) -> str:
    if "password=" in text.lower() and "," in text:  # what the portal of Azure Cache for Redis offers to copy
        return "this looks like a .NET connection string: write it as rediss://:PASSWORD@HOST:PORT"
    if scheme.isalnum():
        return f"unknown scheme {scheme}:// in a server URL: use {EXAMPLE}"
    return f"not a server URL: use {EXAMPLE}"


def _take_userinfo(rest: str) -> tuple[str, str, str]:
    """`rest` without what stands before its last "@", the user, the password. An "@" in the query does not count."""
    location, question, query = rest.partition("?")
    userinfo, at, location = location.rpartition("@")
    if not at:
        return rest, "", ""
    user, colon, password = userinfo.partition(":")
    if not colon:
        user, password = "", user
    return location + question + query, unquote(user), unquote(password)


def _host_and_port(authority: str) -> tuple[str, int]:
    if authority.startswith("["):
        host, closing, port_text = authority[1:].partition("]")
        if not closing or (port_text and not port_text.startswith(":")):
            raise UrlError("an IPv6 address is written in brackets: redis://[::1]:6379")
        port_text = port_text[1:]
    else:
        host, _, port_text = authority.partition(":")
        if ":" in port_text:
            raise UrlError("an IPv6 address is written in brackets: redis://[::1]:6379")
    if not host:
        raise UrlError(f"no host in the server URL: use {EXAMPLE}; in a password, write ? as %3F")
    if not port_text:
        return unquote(host), DEFAULT_PORT
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
        raise UrlError("the port of a server URL is a number from 1 to 65535 (percent-encode an @ : / in a password)")
    return unquote(host), int(port_text)


def _db(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UrlError("the db of a server URL is a number: redis://host:port/0")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() in ("", "true", "yes", "1", "on"):
        return True
    if text.lower() in ("false", "no", "0", "off"):
        return False
    raise UrlError("insecure is true or false")


OPTIONS: Mapping[str, tuple[str, Callable[[str], str | int | bool]]] = {
    "db": ("db", _db),
    "ca": ("ca_file", str),
    "cert": ("cert_file", str),
    "key": ("key_file", str),
    "server_name": ("server_name", str),
    "insecure": ("insecure", _flag),
}


def _options(query: str) -> dict[str, str | int | bool]:
    found: dict[str, str | int | bool] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in OPTIONS:
            raise UrlError(f"unknown option in the server URL: it may have {', '.join(OPTIONS)}")
        attribute, convert = OPTIONS[name]
        found[attribute] = convert(unquote(value))
    return found
