"""What the proxy knows about a command, and finding it quickly.

Owns: Spec (one command) and Catalog (all of them: our own table, and what a server's COMMAND adds to it). Refuses to
know: sessions, effects (`Spec.rule` is a place for them), which commands exist at which version.

Invariants: 10 (only commands of our own table get the routes READ, WRITE and BLOCKING) and 12 (what the table does
not know is PINNED and a write; a server that calls one of our reads a write is believed).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from resp.keys import KeysOf, as_dict, blocks, described, every_other, first_key, no_keys, span
from resp.table import COMMANDS, CONTAINERS, REFUSALS, Container, Route, Row

__all__ = ["Catalog", "Route", "Spec", "blocks", "server_names", "written_keys"]

MAX_SPELLINGS = 4096  # names in mixed case that are remembered; beyond it they are looked up the slow way
MAX_NAME = 128  # bytes of an unknown name that are kept, as Redis shows in its errors

OTHER_DBS = frozenset({b"MOVE", b"COPY"})  # they reach another db
LANE = frozenset({Route.READ, Route.WRITE, Route.BLOCKING, Route.CURSOR, Route.SCRIPT, Route.INFO, Route.PUBLISH})


FIRST, EVERY_OTHER, NOWHERE = slice(1, 2), slice(1, None, 2), slice(0)


@dataclass(slots=True)
class Spec:
    """One command. `name` is in upper case, subcommands as b"XGROUP CREATE"."""

    name: bytes
    route: Route
    keys: KeysOf = field(repr=False)
    writes: bool  # its effect must be mirrored; True for everything unknown
    known: bool = True  # in our own table
    refusal: str = ""  # for REFUSED: one line for the client, without "ERR"
    rule: Any = None  # left to the proxy: its effect rule
    rewritten: bool = False  # left to the proxy: the rule changes the command before it is sent
    one_key: bool = field(init=False, repr=False)  # its keys are args[1], in the session's db, and nothing else
    key_columns: slice = field(init=False, repr=False)  # which of args are its keys, when their places tell; or NOWHERE
    in_multi: bool = field(init=False, repr=False)  # may be part of a MULTI block on the lane; nothing blocks there

    def __post_init__(self) -> None:
        self.one_key = self.keys is first_key and self.name not in OTHER_DBS
        self.key_columns = FIRST if self.one_key else EVERY_OTHER if self.keys is every_other else NOWHERE
        self.in_multi = self.known and self.route in LANE


def written_keys(spec: Spec, args: list[bytes]) -> list[bytes]:
    """Every key that the call may write (keys that it only reads may be among them)."""
    return spec.keys(args) if spec.writes else []


class Catalog:
    """All known commands. `lookup` never raises and always gives a Spec.

    `by_name` holds plain commands in upper case, lower case and the spellings seen so far; a hit is final. Containers
    (CLIENT, XGROUP ...) are not in it: their subcommand decides.
    """

    __slots__ = ("_containers", "_spellings", "by_name", "server", "specs")

    def __init__(self) -> None:
        self.specs: dict[bytes, Spec] = {}  # every command by its Spec.name, containers and subcommands too
        self.by_name: dict[bytes, Spec] = {}
        self.server: frozenset[bytes] = frozenset()  # what the described server knows; empty without COMMAND
        self._containers: dict[bytes, Route] = {}  # container -> route of a subcommand that is not in `specs`
        self._spellings = 0

    @classmethod
    def default(cls) -> Catalog:
        """Our own table alone."""
        catalog = cls()
        for row in COMMANDS:
            for spec in _row_specs(row, ""):
                catalog._add(spec)
        for container in CONTAINERS:
            catalog._add_container(container)
        return catalog

    @classmethod
    def from_command_reply(cls, reply: Any) -> Catalog:
        """Our own table and what the server's COMMAND reply (decoded, any version, RESP2 or RESP3) adds to it.

        Commands that we do not know become PINNED, with the keys that the server describes. Entries that cannot be
        read are skipped: such commands stay unknown.
        """
        catalog = cls.default()
        catalog.server = server_names(reply)
        for name, entry in _entries(reply):
            spec = catalog.specs.get(name)
            if spec is None or _contradicts(spec, entry):
                catalog._add_foreign(name, entry)
        return catalog

    def lookup(self, args: list[bytes]) -> Spec:
        """The Spec of a command, in any case of its name. Unknown: PINNED, writes, no keys."""
        try:
            return self.by_name[args[0]]
        except (KeyError, IndexError):
            return self._lookup_slowly(args)

    def __iter__(self) -> Iterator[Spec]:
        return iter(self.specs.values())

    def __repr__(self) -> str:
        return f"<Catalog {len(self.specs)} commands, {len(self.server)} on the server, {self._spellings} spellings>"

    def _lookup_slowly(self, args: list[bytes]) -> Spec:
        name = args[0][:MAX_NAME].upper() if args else b""
        if name in self._containers:
            return self._subcommand(name, args)
        spec = self.by_name.get(name)
        if spec is None or len(args[0]) > MAX_NAME:
            return _unknown(name)
        if self._spellings < MAX_SPELLINGS:
            self._spellings += 1
            self.by_name[args[0]] = spec
        return spec

    def _subcommand(self, container: bytes, args: list[bytes]) -> Spec:
        if len(args) < 2:
            return self.specs[container]
        name = container + b" " + args[1][:MAX_NAME].upper()
        return self.specs.get(name) or self._unlisted(name, container)

    def _unlisted(self, name: bytes, container: bytes) -> Spec:
        route = self._containers[container]
        refusal = _refusal(name.decode(errors="backslashreplace")) if route is Route.REFUSED else ""
        return Spec(name, route, self.specs[container].keys, writes=True, known=False, refusal=refusal)

    def _add(self, spec: Spec) -> None:
        self.specs[spec.name] = spec
        if b" " not in spec.name and spec.name not in self._containers:
            self.by_name[spec.name] = self.by_name[spec.name.lower()] = spec

    def _add_container(self, container: Container) -> None:
        name = container.name.encode()
        self._containers[name] = container.other
        for row in container.rows:
            for spec in _row_specs(row, container.name + " "):
                self._add(spec)
        writes = any(row.writes for row in container.rows)
        self._add(Spec(name, container.bare, container.keys, writes))

    def _add_foreign(self, name: bytes, entry: list[Any]) -> None:
        container, _, subcommand = name.partition(b" ")
        if subcommand and self._containers.get(container, Route.PINNED) is Route.REFUSED:
            return  # what is new in CLUSTER or DEBUG stays refused
        if _subcommands(entry):
            self._containers[name] = Route.PINNED
        self._add(_foreign(name, entry))


def server_names(reply: Any) -> frozenset[bytes]:
    """The upper-case names in a COMMAND reply; subcommands (>= 7.0) as b"XGROUP CREATE"."""
    return frozenset(name for name, _ in _entries(reply))


# -- our own table -------------------------------------------------------------------------------------------


def _row_specs(row: Row, prefix: str) -> Iterator[Spec]:
    for word in row.names.split():
        name = prefix + word
        refusal = _refusal(name) if row.route is Route.REFUSED else ""
        yield Spec(name.encode(), row.route, row.keys, row.writes, refusal=refusal)


def _refusal(name: str) -> str:
    """The text for a refused command; `name` is shown without line breaks."""
    text = REFUSALS.get(name) or REFUSALS[name.partition(" ")[0]]
    return text.format("".join(letter if letter.isprintable() else "?" for letter in name))


def _unknown(name: bytes) -> Spec:
    return Spec(name, Route.PINNED, no_keys, writes=True, known=False)


# -- what a server says --------------------------------------------------------------------------------------


def _entries(reply: Any) -> Iterator[tuple[bytes, list[Any]]]:
    """Every readable (upper name, entry), subcommands behind their container."""
    for entry in reply if isinstance(reply, (list, tuple)) else ():
        name = _entry_name(entry)
        if not name:
            continue
        yield name, entry
        for sub in _subcommands(entry):
            if sub_name := _entry_name(sub):
                yield sub_name.replace(b"|", b" "), sub


def _subcommands(entry: list[Any]) -> list[Any]:
    return list(entry[9]) if len(entry) > 9 and isinstance(entry[9], (list, tuple)) else []


def _entry_name(entry: Any) -> bytes:
    readable = isinstance(entry, (list, tuple)) and len(entry) >= 6 and isinstance(entry[0], bytes)
    return entry[0].upper() if readable else b""


def _flags(entry: list[Any]) -> frozenset[bytes]:
    flags = entry[2]
    if not isinstance(flags, (list, tuple, set, frozenset)):
        return frozenset()
    return frozenset(flag.lower() for flag in flags if isinstance(flag, bytes))


def _contradicts(spec: Spec, entry: list[Any]) -> bool:
    """Whether the server has something else under a name that we would send down the lane."""
    flags = _flags(entry)
    if spec.route in (Route.READ, Route.CURSOR) and b"write" in flags:
        return True
    return spec.route in (Route.READ, Route.WRITE) and b"blocking" in flags


def _foreign(name: bytes, entry: list[Any]) -> Spec:
    """A command that only the server knows: PINNED; a read only when the server says so."""
    flags = _flags(entry)
    writes = b"write" in flags or b"readonly" not in flags
    return Spec(name, Route.PINNED, _foreign_keys(entry, flags), writes, known=False)


def _foreign_keys(entry: list[Any], flags: frozenset[bytes]) -> KeysOf:
    """The described keys, or none when the description is not complete.

    A part of the keys would be worse than none: the rest would silently not be mirrored.
    """
    specs = entry[8] if len(entry) > 8 and isinstance(entry[8], (list, tuple)) else ()
    if specs and any(as_dict(spec) for spec in specs):
        return described(specs) or no_keys
    first, last, step = entry[3:6]
    if b"movablekeys" in flags or not all(isinstance(number, int) for number in (first, last, step)):
        return no_keys
    return span(first, last, step)
