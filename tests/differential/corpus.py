"""A corpus of calls, written as templates: every command, every option, edge values, and what is wrong with them.

Owns: the template language, the keys that a call finds (`FIXTURES`), the systematic mutations. Refuses to know: what a
server answers. The templates themselves are in calls_*.py, by kind of value.

A line is one or more commands, separated by " ; ", of words separated by blanks. `[a|b|]` is one of the alternatives
(which may be nested, empty, and of several words). `@l` is a key that holds what FIXTURES says of "l"; `@l2` another
one; `@0` has nothing. Words are Python byte escapes; `""` is an empty one. A line that begins with `~` has an outcome
of its own on every server (random members, ids from the clock).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Call = tuple[bytes, ...]

FUTURE_MS = "4102444800000"  # the year 2100

FIXTURES: dict[str, Sequence[str]] = {
    "0": (),
    "s": ("SET @ hello",),
    "n": ("SET @ 10",),
    "f": ("SET @ 10.5",),
    "e": (f"SET @ expiring PXAT {FUTURE_MS}", f"PEXPIREAT @ {FUTURE_MS}"),  # 6.2.0 has no PXAT; both are harmless
    "b": (r"SET @ \x00\xff\xf0",),
    "p": ("PFADD @ a b c",),
    "l": ("RPUSH @ a b c 1 a",),
    "m": ("RPUSH @ 3 1 2",),
    "t": ("SADD @ 1 2 3",),
    "u": ("SADD @ a b c",),
    "z": ("ZADD @ 1 a 2 b 3 c",),
    "y": ("ZADD @ 0 a 0 b 0 c 0 d",),
    "g": ("GEOADD @ 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",),
    "h": ("HSET @ f v g 10 h 1.5",),
    "k": ("HSET @ f v g w h x", f"HPEXPIREAT @ {FUTURE_MS} FIELDS 2 f g"),
    "w": ("XADD @ 1-1 f v", "XADD @ 2-1 f w g x", "XADD @ 3-1 f z"),
    "x": (
        "XADD @ 1-1 f v",
        "XADD @ 2-1 f w g x",
        "XADD @ 3-1 f z",
        "XGROUP CREATE @ g1 0",
        "XGROUP CREATE @ g2 $",
        "XREADGROUP GROUP g1 c1 COUNT 2 STREAMS @ >",
    ),
    "v": ("VADD @ VALUES 2 1 0 a", "VADD @ VALUES 2 0 1 b"),
}

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_KEY = re.compile(r"@([0a-z])\d*\Z")
_WRONG = (b"", b"x", b"-1", b"9223372036854775808", b"1e400")
_EXPANSIONS = 16  # of one template; each alternative is among them


@dataclass(frozen=True, slots=True)
class Unit:
    """What is run together on keys of its own: fixtures, then calls."""

    name: str  # of the command that it is about: "XGROUP CREATE"
    ident: str  # the prefix of its keys
    fixtures: tuple[Call, ...]
    calls: tuple[Call, ...]
    varies: bool  # its outcome is not the same on every server

    def __str__(self) -> str:
        return " ; ".join(b" ".join(map(_quoted, call)).decode() for call in (*self.fixtures, *self.calls))


def _quoted(word: bytes) -> bytes:
    return repr(word)[1:].encode() if not word or not re.fullmatch(rb"[!-~]+", word) else word


def expand(template: str, limit: int = _EXPANSIONS, seed: int = 0) -> list[str]:
    """Variants of a template: all of them, or `limit` in which each alternative occurs."""
    variants = _variants(template)
    if len(variants) <= limit:
        return variants
    rng = random.Random(seed)
    chosen: list[str] = [variants[0]]
    missing = {word for variant in variants for word in variant.split()} - set(variants[0].split())
    while missing:
        best = max(rng.sample(variants, min(40, len(variants))), key=lambda one: len(missing.intersection(one.split())))
        if missing.intersection(best.split()):
            chosen.append(best)
            missing -= set(best.split())
    spare = [variant for variant in variants if variant not in chosen]
    return chosen + rng.sample(spare, max(0, limit - len(chosen)))


def _variants(template: str) -> list[str]:
    parts = [template]
    while any(_CHOICE.search(part) for part in parts):
        parts = [variant for part in parts for variant in _one_choice(part)]
    return list(dict.fromkeys(" ".join(part.split()) for part in parts))


def _one_choice(part: str) -> Iterator[str]:
    found = _CHOICE.search(part)
    if found is None:
        yield part
        return
    for alternative in found[1].split("|"):
        yield part[: found.start()] + alternative + part[found.end() :]


def words(text: str) -> list[str]:
    return ["" if word == '""' else word for word in text.split()]


def _bytes(word: str, prefix: bytes) -> bytes:
    if _KEY.match(word):
        return prefix + word[1:].encode()
    return word.encode("latin-1").decode("unicode_escape").encode("latin-1") if "\\" in word else word.encode()


def call(text: str, prefix: bytes = b"") -> Call:
    return tuple(_bytes(word, prefix) for word in words(text))


def fixtures(text: str, prefix: bytes) -> tuple[Call, ...]:
    keys = dict.fromkeys(word for word in text.split() if _KEY.match(word))
    return tuple(
        tuple(_bytes(key if word == "@" else word, prefix) for word in words(line))
        for key in keys
        for line in FIXTURES[key[1]]
    )


def mutations(args: Sequence[str]) -> Iterator[list[str]]:
    """What is wrong with a call: its arity, each of its arguments, the type of its keys; and the case of its name."""
    if "\\" not in args[0]:
        yield [args[0].swapcase(), *args[1:]]
    for count in range(1, len(args)):
        yield list(args[:count])
    yield [*args, "extra"]
    yield [*args, "extra", "extra"]
    for index in range(1, len(args)):
        wrong = ["@0", "@l" if args[index][1] != "l" else "@z", "@s"] if _KEY.match(args[index]) else _WRONG
        for value in wrong:
            text_value = value if isinstance(value, str) else value.decode()
            if text_value != args[index]:
                yield [*args[:index], text_value, *args[index + 1 :]]


CONTAINERS = frozenset(
    [
        "ACL",
        "CLIENT",
        "CLUSTER",
        "COMMAND",
        "COMMANDLOG",
        "CONFIG",
        "DEBUG",
        "FUNCTION",
        "LATENCY",
        "MEMORY",
        "MODULE",
        "OBJECT",
        "PUBSUB",
        "SCRIPT",
        "SLOWLOG",
        "XGROUP",
        "XINFO",
    ]
)


def command_name(args: Sequence[bytes]) -> str:
    """Of a call: "GET", "XGROUP CREATE"."""
    name = args[0].decode(errors="replace").upper() if args else ""
    if name in CONTAINERS and len(args) > 1:
        return f"{name} {args[1].decode(errors='replace').upper()}"
    return name


def units(template: str, ident: str, *, limit: int = _EXPANSIONS, mutate: bool = True) -> Iterator[Unit]:
    """A template's variants, each a unit; and one with everything that is wrong with the first of them."""
    varies = template.startswith("~")
    variants = expand(template.removeprefix("~").strip(), limit)
    for number, variant in enumerate(variants):
        yield _unit(variant, [part.split() for part in variant.split(" ; ")], f"{ident}.{number}", varies)
    if mutate and variants:
        lines = [words(part) for part in variants[0].split(" ; ")]
        name = command_name(call(variants[0]))
        wrong = list(mutations(lines[0]))
        yield _unit(" ".join(word for line in wrong for word in line), wrong, f"{ident}.wrong", varies, name)


def _unit(text: str, lines: Sequence[Sequence[str]], ident: str, varies: bool, name: str = "") -> Unit:
    prefix = f"{ident}:".encode()
    calls = tuple(tuple(_bytes("" if w == '""' else w, prefix) for w in line) for line in lines)
    return Unit(name or command_name(calls[0]), ident, fixtures(text, prefix), calls, varies)


def draw(rng: random.Random, lines: Sequence[str], prefix: bytes = b"", wrong: float = 0.1) -> list[Call]:
    """One of the lines with random alternatives, on few keys that others use, too; sometimes with a mistake."""
    text = rng.choice(lines).removeprefix("~")
    while found := _CHOICE.search(text):
        text = text[: found.start()] + rng.choice(found[1].split("|")) + text[found.end() :]
    chosen = [words(part) for part in text.split(" ; ")]
    if rng.random() < wrong:
        chosen[0] = rng.choice(list(mutations(chosen[0])))
    return [tuple(_bytes(word, prefix) for word in line) for line in chosen]


def templates(text: str) -> list[str]:
    """The lines of a table; `#` begins a comment."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
