"""Which clients CLIENT KILL and CLIENT LIST are about: the filters of every version, with the servers' own errors.

Facts: tried on Redis 6.2, 7.0, 8.2 and Valkey 8.1, 9.1. Valkey takes several ids, has the same filters for LIST, and
from 9.0 on their opposites (NOT-…). Of a filter that is given twice the last one counts, but ids add up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.session import Command, Mode
from resp.encode import error
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.hub import Client
    from proxy.local import Local

SYNTAX = error("ERR syntax error")
OLD = frozenset([b"ID", b"TYPE", b"ADDR", b"LADDR", b"USER", b"SKIPME"])
SINCE_VALKEY_9 = frozenset([b"FLAGS", b"NAME", b"IDLE", b"LIB-NAME", b"LIB-VER", b"DB", b"CAPA", b"IP"])
NO_OPPOSITE = frozenset([b"SKIPME", b"MAXAGE", b"IDLE"])
FLAGS = frozenset(b"bcdeirtuxABEIMNOPRSTU")  # that Valkey 9.1 knows
CAPABILITIES = frozenset(b"r")
LEAST_DBS = 16  # what a server has, as long as nobody has seen a higher one

Test = Callable[["Client"], bool]


class Refused(Exception):
    """A filter that is none; `frame`: the error."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.frame = error("ERR " + text)


@dataclass(slots=True)
class Filters:
    """What has been asked for."""

    skip_me: bool
    tests: dict[bytes, Test] = field(default_factory=dict)  # by name; NOT- in front for an opposite
    ids: dict[bytes, set[int]] = field(default_factory=dict)

    def of(self, sessions: Collection[Client], me: Client) -> list[Client]:
        """Those that pass all of them."""
        return [
            one
            for one in sessions
            if not (self.skip_me and one is me) and all(test(one) for test in self.tests.values())
        ]


def parse(local: Local, words: Command, *, skip_me: bool) -> Filters:
    """The options of CLIENT KILL, or of CLIENT LIST on Valkey. Errors: Refused."""
    filters = Filters(skip_me)
    known = _known(local)
    index = 0
    while index < len(words):
        name, opposite = _name(words[index].upper(), known)
        key = b"NOT-" + name if opposite else name
        if name == b"ID" and _several_ids(local):
            index = _ids(filters, key, words, index + 1)
            continue
        if name not in known or index + 1 == len(words):
            raise Refused("syntax error")
        value = words[index + 1]
        if name == b"SKIPME":
            filters.skip_me = _yes(value)
        else:
            test = _TESTS[name](local, value, key.decode())
            filters.tests[key] = _not(test) if opposite else test
        index += 2
    return filters


def _known(local: Local) -> frozenset[bytes]:
    maxage = frozenset([b"MAXAGE"]) if local.version[1:] >= ((8, 0) if local.valkey else (7, 4)) else frozenset()
    return OLD | maxage | (SINCE_VALKEY_9 if _opposites(local) else frozenset())


def _opposites(local: Local) -> bool:
    return local.valkey and local.version[1:] >= (9, 0)


def _several_ids(local: Local) -> bool:
    return local.valkey and local.version[1:] >= (8, 1)


def _name(word: bytes, known: frozenset[bytes]) -> tuple[bytes, bool]:
    """The filter's name, and whether its opposite is meant."""
    name = word.removeprefix(b"NOT-")
    if name == word or not known & SINCE_VALKEY_9 or name in NO_OPPOSITE:
        return word, False
    return name, True


def _not(test: Test) -> Test:
    return lambda one: not test(one)


def _yes(value: bytes) -> bool:
    answer = {b"yes": True, b"no": False}.get(value.lower())
    if answer is None:
        raise Refused("syntax error")
    return answer


def _ids(filters: Filters, key: bytes, words: Command, index: int) -> int:
    """ID 1 2 3: as many as there are numbers; where the next filter begins."""
    if len(words) == 1:
        raise Refused("syntax error")
    ids = filters.ids.setdefault(key, set())
    while index < len(words) and (number := integer(words[index])) is not None:
        if number < 1:
            raise Refused("client-id should be greater than 0")
        ids.add(number)
        index += 1
    filters.tests[key] = (lambda one: one.id not in ids) if key.startswith(b"NOT") else (lambda one: one.id in ids)
    return index


def _id(local: Local, value: bytes, name: str) -> Test:
    wanted = integer(value)
    if wanted is None and not local.newer_than(6):
        raise Refused("value is not an integer or out of range")
    if local.newer_than(6) and (wanted is None or wanted < 1):
        raise Refused("client-id should be greater than 0")
    return lambda one: one.id == wanted


def _type(local: Local, value: bytes, name: str) -> Test:
    wanted = value.lower()
    if wanted not in TYPES and not (local.valkey and wanted == b"primary"):
        raise Refused(f"Unknown client type '{value.decode(errors='replace')}'")
    return lambda one: type_of(one) == wanted


TYPES = frozenset([b"normal", b"pubsub", b"master", b"replica", b"slave"])


def type_of(session: Client) -> bytes:
    """As servers class their clients."""
    return b"pubsub" if session.pin is not None and session.pin.subscribed else b"normal"


def flags_of(session: Client) -> str:
    """As CLIENT LIST shows them."""
    pin = session.pin
    flags = "b" if session.mode is Mode.WAITING or session.hub.pausing.stops(session) else ""
    flags += "x" if pin is not None and pin.in_multi else ""
    flags += "P" if pin is not None and pin.subscribed else ""
    return flags or "N"


def _user(local: Local, value: bytes, name: str) -> Test:
    if not local.knows(value):
        raise Refused(f"No such user '{value.decode(errors='replace')}'")
    return lambda one: one.user == value


def _at_least(of: Callable[[Client], float]) -> Callable[[Local, bytes, str], Test]:
    """At least so many seconds."""

    def make(local: Local, value: bytes, name: str) -> Test:
        least = integer(value)
        if least is None:
            raise Refused(f"{name.lower()} is not an integer or out of range")
        if least < 1:
            raise Refused(f"{name.lower()} should be greater than 0")
        return lambda one: int(one.hub.clock() - of(one)) >= least

    return make


def _letters(what: str, possible: frozenset[int], of: Callable[[Client], str]) -> Callable[[Local, bytes, str], Test]:
    """Has all of these letters."""

    def make(local: Local, value: bytes, name: str) -> Test:
        if not possible.issuperset(value):
            where = f"{name} filter" if name.startswith("NOT-") else "provided filter"
            raise Refused(f"Unknown {what} found in the {where}: {value.decode(errors='replace')}")
        return lambda one: set(value).issubset(of(one).encode())

    return make


def _db(local: Local, value: bytes, name: str) -> Test:
    wanted = integer(value)
    if wanted is None:
        raise Refused(f"{name} is not an integer or out of range")
    link = local.hub.lane.link
    most = max(LEAST_DBS - 1, *(link.dbs if link is not None else ()))
    if not 0 <= wanted <= most:
        raise Refused(f"{name} number should be between 0 and {most}")
    return lambda one: one.db == wanted


def _same(of: Callable[[Client], bytes]) -> Callable[[Local, bytes, str], Test]:
    """Exactly this text."""
    return lambda local, value, name: lambda one: of(one) == value


_TESTS: dict[bytes, Callable[[Local, bytes, str], Test]] = {
    b"ID": _id,
    b"TYPE": _type,
    b"ADDR": _same(lambda one: one.address.encode()),
    b"LADDR": _same(lambda one: one.local_address.encode()),
    b"USER": _user,
    b"MAXAGE": _at_least(lambda one: one.connected_at),
    b"IDLE": _at_least(lambda one: one.last_at),
    b"FLAGS": _letters("flags", FLAGS, flags_of),
    b"CAPA": _letters("capa", CAPABILITIES, lambda one: ""),  # none is kept by the proxy
    b"NAME": _same(lambda one: one.name),
    b"LIB-NAME": _same(lambda one: one.library.get(b"lib-name", b"")),
    b"LIB-VER": _same(lambda one: one.library.get(b"lib-ver", b"")),
    b"DB": _db,
    b"IP": _same(lambda one: one.address.rpartition(":")[0].encode()),
}


def listed(local: Local, words: Command, me: Client) -> list[Client]:
    """Whom CLIENT LIST with these options is about. Errors: Refused."""
    sessions = local.hub.clients()
    if _several_ids(local):
        return parse(local, words, skip_me=False).of(sessions, me)
    option = words[0].upper() if words else b""
    if option == b"ID" and len(words) > 1:
        ids = [integer(word) for word in words[1:]]
        if None in ids:
            raise Refused("Invalid client ID")
        return [one for one in sessions if one.id in ids]
    if option == b"TYPE" and len(words) == 2:
        return [one for one in sessions if _type(local, words[1], "TYPE")(one)]
    if words:
        raise Refused("syntax error")
    return sessions
