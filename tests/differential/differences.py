"""Where a reply through the proxy may differ from the server's own, and why.

Owns: ALLOWED, the whole list (the documentation's table is made from it), and what is compared in its place; KNOWN,
the defects that are not mended yet. Everything that is not listed must be the same, byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from tests.differential.corpus import Call, command_name
from tests.differential.wire import Tree, tree

Same = Callable[[bytes, bytes], bool]
When = Callable[[Call], bool]

NEAR_MS = 3000  # between the same call on the two servers


def same_shape(a: bytes, b: bytes) -> bool:
    """The same types at the same places; aggregates as long, but for their values anything."""
    return _alike(tree(a), tree(b), lambda x, y: True)


def same_kind(a: bytes, b: bytes) -> bool:
    """The same type of reply; null where null."""
    left, right = tree(a), tree(b)
    return left.kind == right.kind and (left.value is None) == (right.value is None) and left.kind != b"-"


def near(a: bytes, b: bytes) -> bool:
    """The same but for integers, which are times: within NEAR_MS."""
    return _alike(tree(a), tree(b), _near)


def unordered(a: bytes, b: bytes) -> bool:
    """The same items in any order, on every level."""
    return a[:1] == b[:1] and _sorted(tree(a)) == _sorted(tree(b))


def masked(pattern: bytes) -> Same:
    """The same once what matches (length prefixes included) is struck out."""
    compiled = re.compile(pattern)

    def same(a: bytes, b: bytes) -> bool:
        return compiled.sub(b"#", a) == compiled.sub(b"#", b)

    return same


def page(a: bytes, b: bytes) -> bool:
    """A page of a SCAN; where it is the whole, the same items in any order."""
    left, right = tree(a), tree(b)
    if left.kind != b"*" or right.kind != b"*" or not left.value or not right.value:
        return a == b
    whole = left.value[0].value == right.value[0].value == b"0"
    return not whole or _sorted(left.value[1]) == _sorted(right.value[1])


def refused(a: bytes, b: bytes) -> bool:
    """An error of the proxy's that says why."""
    return b.startswith(b"-ERR ") and b"the proxy" in b


def both(a: bytes, b: bytes) -> bool:
    """Any answers."""
    return True


def _alike(a: Tree, b: Tree, texts: Callable[[Tree, Tree], bool]) -> bool:
    if a.kind != b.kind or (a.value is None) != (b.value is None):
        return False
    if a.kind == b"-":
        return bool(a.value == b.value)
    if isinstance(a.value, list):
        return len(a.value) == len(b.value) and all(_alike(x, y, texts) for x, y in zip(a.value, b.value, strict=True))
    return texts(a, b)


def _near(a: Tree, b: Tree) -> bool:
    if a.kind == b":":
        return abs(int(a.value) - int(b.value)) <= NEAR_MS
    return bool(a.value == b.value)


def _sorted(node: Tree) -> object:
    if not isinstance(node.value, list):
        return (node.kind, repr(node.value))
    if node.kind == b"%":
        pairs = zip(node.value[::2], node.value[1::2], strict=True)
        return (node.kind, sorted(((_sorted(key), _sorted(value)) for key, value in pairs), key=repr))
    return (node.kind, sorted((_sorted(item) for item in node.value), key=repr))


@dataclass(frozen=True, slots=True)
class Allowed:
    """`names`: commands (or containers) that it is about; `same`: what must hold instead; `when`: for which calls."""

    names: str
    same: Same
    reason: str
    when: When | None = None

    def covers(self, name: str, args: Call) -> bool:
        names = self.names.split(", ")
        return (name in names or name.split(" ")[0] in names) and (self.when is None or self.when(args))


def _clock_id(args: Call) -> bool:
    return b"*" in args


def _another_user(args: Call) -> bool:
    """Made by another call of the corpus."""
    names = [after for word, after in pairwise(args) if word.upper() in (b"USER", b"NOT-USER")]
    return any(name not in (b"default", b"nosuch") for name in names)


def _roughly(args: Call) -> bool:
    return b"~" in args


HASHED = "the order of a hash table is a process's own (its seed); the members are the same"
RANDOM = "random by definition"
CLOCK = "the moment of the call"

ALLOWED: tuple[Allowed, ...] = (
    Allowed("TIME, LASTSAVE", same_shape, CLOCK),
    Allowed("TTL, PTTL, EXPIRETIME, PEXPIRETIME, HTTL, HPTTL, HEXPIRETIME, HPEXPIRETIME", near, CLOCK),
    Allowed("XPENDING, XINFO, OBJECT IDLETIME", near, CLOCK),
    Allowed("EVAL", same_shape, CLOCK, lambda args: b"TIME" in args[1]),
    Allowed("XADD", same_shape, CLOCK, _clock_id),
    Allowed("RANDOMKEY, SPOP, SRANDMEMBER, HRANDFIELD, ZRANDMEMBER, VRANDMEMBER, ACL GENPASS, VLINKS",
            same_kind, RANDOM),
    Allowed("SMEMBERS, SINTER, SUNION, SDIFF, KEYS", unordered, HASHED),
    Allowed("SSCAN, HSCAN, ZSCAN, SCAN, CLUSTERSCAN", page, HASHED),
    Allowed("DUMP, FUNCTION DUMP", same_kind, HASHED),
    Allowed("SORT, SORT_RO", unordered, HASHED, lambda args: b"nosort" in args or b"no*" in args),
    Allowed("SAVE, BGSAVE, BGREWRITEAOF", both, "whether the last one is still going on"),
    Allowed("VINFO", masked(rb"\+(max-level|vset-uid)\r\n:\d+\r\n"), RANDOM),
    Allowed("MEMORY USAGE", same_kind, "depends on the allocator's size classes and the length of what came before"),
    Allowed("DEBUG SDSLEN", masked(rb"(avail|alloc):\d+"), "what is spare in an allocation, as above"),
    Allowed("INFO, MEMORY STATS, MEMORY DOCTOR, MEMORY MALLOC-STATS, LATENCY, SLOWLOG, COMMANDLOG, LOLWUT, "
            "DEBUG HTSTATS-KEY, DEBUG HTSTATS, DEBUG OBJECT, DEBUG DIGEST, DEBUG STRUCTSIZE",
            same_kind, "a report about the server, which serves the proxy's own connections, too"),
    Allowed("COMMAND, CONFIG GET, ACL CAT", unordered, HASHED),
    Allowed("CLUSTER, MODULE, DEBUG", refused, "a subcommand that is not known to be harmless is refused"),
    Allowed("ACL LOG", both, "who fails to log in fails at the proxy, and is not in the server's list"),
    Allowed("HELLO", masked(rb"\$2\r\nid\r\n:\d+\r\n"), "the connection's id is the proxy's"),
    Allowed("CLIENT ID", same_kind, "the proxy's number for the connection"),
    Allowed("CLIENT LIST, CLIENT KILL", both, "the only users that the proxy knows are those of its own clients",
            _another_user),
    Allowed("CLIENT INFO, CLIENT LIST", same_kind, "of the proxy's own clients, with fewer fields"),
    Allowed("XTRIM", same_kind, "`~` is made `=`, as both sides must trim the same", _roughly),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """A defect that is not mended yet. `names` as in Allowed; `versions`: of the servers, () for all."""

    names: str
    reason: str
    when: When | None = None
    versions: tuple[str, ...] = ()

    def concerns(self, version: str) -> bool:
        return not self.versions or version in self.versions

    def covers(self, name: str, args: Call, version: str) -> bool:
        return self.concerns(version) and Allowed(self.names, both, self.reason, self.when).covers(name, args)


ALL_VERSIONS = ("redis-6.2", "redis-7.0", "valkey-8.1", "redis-8.2", "valkey-9.1")

KNOWN: tuple[Known, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownConversation:
    """One that is not the same; `by_decision`: it stays so."""

    reason: str
    by_decision: bool = False
    versions: tuple[str, ...] = ALL_VERSIONS


_IN_MULTI = KnownConversation("refused inside MULTI: it is about the client's session, which is the proxy's", True)

KNOWN_CONVERSATIONS: dict[str, KnownConversation] = {
    "transactions: sessions inside MULTI": _IN_MULTI,
    "transactions: CLIENT ID inside MULTI": _IN_MULTI,
    "transactions: HELLO inside MULTI": _IN_MULTI,
    "transactions: AUTH inside MULTI": _IN_MULTI,
    "transactions: CLIENT REPLY inside MULTI": _IN_MULTI,
    "blocking: a group destroyed under its reader": KnownConversation(
        "the error of a new call, in place of the one for waiting clients", True, ("redis-6.2", "redis-7.0")
    ),
    "sessions: a bulk without its end": KnownConversation(
        "broken bytes: the two behind a bulk may be any, as for Redis; Valkey hangs up",
        True,
        ("valkey-8.1", "valkey-9.1"),
    ),
}


def same_reply(args: Call, bare: bytes, proxied: bytes) -> bool:
    """Whether the two are what they have to be."""
    if bare == proxied:
        return True
    name = command_name(args)
    return any(one.covers(name, args) and one.same(bare, proxied) for one in ALLOWED)


def known(args: Call, version: str) -> Known | None:
    name = command_name(args)
    return next((one for one in KNOWN if one.covers(name, args, version)), None)


def documented() -> list[tuple[str, str, str]]:
    """(commands, what is compared in place of the bytes, reason), for the documentation."""
    rows = [(row.names, _first_line(row.same.__doc__ or "The same but for one part."), row.reason) for row in ALLOWED]
    decided = {name: known for name, known in KNOWN_CONVERSATIONS.items() if known.by_decision}
    return rows + [(name, "Nothing.", known.reason) for name, known in decided.items()]


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0]
