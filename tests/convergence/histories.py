"""Histories for hypothesis to draw and to shrink: what several clients say in which order, and what the network does.

Owns: the pool of commands (the differential corpus and the effects' families, on the same few hot keys) and the steps.
Refuses to know: how a history is played, what must hold afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from hypothesis import strategies as st

from resp.catalog import Catalog, Route
from tests.differential import calls_data
from tests.differential.corpus import FIXTURES, call, expand, templates
from tests.integration.effects_commands import FAMILIES

CLIENTS = 4
STEPS = 14

TABLES = ["STRINGS", "KEYS", "LISTS", "SETS", "ZSETS", "GEO", "HASHES", "STREAMS", "SCRIPTING"]

# What the effects' families call a kind of key or value: here the keys of the corpus, so that everything meets.
KINDS = {
    "s": "s s2 e 0",
    "n": "n f 0",
    "p": "p p2 0",
    "l": "l l2 m 0",
    "t": "t t2 u 0",
    "z": "z z2 y 0",
    "g": "g g2 0",
    "h": "h k 0",
    "x": "x w 0",
    "any": "s n f e b p l m t u z y g h k w x 0",
    "v": "a b c ex hello 1",
    "c": "count g 1",
    "i": "0 1 -3 42",
    "f": "0.1 -2.5 3e2",
    "score": "1 0.1 0.2 -inf 3.3333333333333335 1e300",
    "lon": "13.36 15.08 -100",
    "secs": "100 500 0 -1",
    "ms": "100000 500000 -1",
    "future": "4102444800000 4102444900000",
    "future_s": "4102444800 4102444900",
    "past": "1 1000000",
    "past_s": "1 1000",
    "now": "1700000000000",
    "cg": "g1 g2",
    "co": "c1 c2 c3",
    "id": "1-1 2-1 3-1 5 7-7 0-1",
    "dump": r"\x00\xc0\x0a\x09\x00\xbe\x6d\x06\x89\x5a\x28\x00\x0a bad",
    "script": r"redis.call('DEL',KEYS\x5b1\x5d)\x20redis.call('SET',KEYS\x5b1\x5d,math.random(9))\x20nosuch()",
    "nowrites": r"#!lua\x20flags=no-writes\nreturn\x20redis.call('EXISTS',KEYS\x5b1\x5d)",
}
WORD = re.compile(r"\$([a-z_]+)")

WAITING = """
BLPOP l 0
BRPOP 0 l 0
BLMOVE l l2 LEFT RIGHT 0
BRPOPLPUSH l 0 0
BZPOPMIN z 0 0
BZPOPMAX 0 z 0
XREAD BLOCK 0 STREAMS x w $ $
XREADGROUP GROUP g1 c1 BLOCK 0 STREAMS x >
"""

SOON = """
PEXPIRE [s|l|t|z|h|x|0] [5|20|60]
SET [s|0] v PX [5|20|60]
GETEX [s|0] PX 20
PSETEX [s|0] 20 v
"""

FIELD_TIMES = re.compile(r"^(HEXPIRE|HPEXPIRE|HGETEX|HSETEX)", re.IGNORECASE)
ELSEWHERE = re.compile(r"^(FLUSHALL|FLUSHDB|SWAPDB)", re.IGNORECASE)  # too strong to be drawn as often as the others
WHOLE_DB = ["FLUSHDB", "FLUSHALL", "SWAPDB 0 1", "FLUSHDB ASYNC"]


class Net(Enum):
    """What happens to the proxy's connections."""

    EFFECTS_WAIT = "nothing more is sent to the mirror side"
    EFFECTS_GO = "it is sent"
    MIRROR_UNHEARD = "what the mirror side answers is not heard"
    MIRROR_HEARD = "it is heard"
    MIRROR_CUT = "the mirror link breaks"
    PINS_UNHEARD = "what the serving side answers on pinned connections is not heard"
    PINS_HEARD = "it is heard"


@dataclass(frozen=True, slots=True)
class Say:
    """A client sends commands in one write. `then`: everything has come to rest before the next step."""

    client: int
    commands: tuple[str, ...]
    then: bool = True


@dataclass(frozen=True, slots=True)
class Leave:
    client: int


@dataclass(frozen=True, slots=True)
class Wait:
    ms: int


Step = Say | Leave | Wait | Net
History = list[Step]


@cache
def pool(field_times: bool) -> dict[str, list[str]]:
    """By name of the command, every call in the corpora that may change something."""
    found: dict[str, list[str]] = {}
    for text in dict.fromkeys((*_corpus(), *_families())):
        name = text.split()[0].upper()
        if (field_times or not FIELD_TIMES.match(name)) and not ELSEWHERE.match(name):
            found.setdefault(name, []).append(text)
    return found


def _corpus() -> Iterator[str]:
    catalog = Catalog.default()
    for table in TABLES:
        for template in templates(getattr(calls_data, table)):
            for variant in expand(template.removeprefix("~").strip()):
                for text in variant.split(" ; "):
                    spec = catalog.lookup(list(call(text)))
                    if spec.writes or spec.route is Route.BLOCKING:
                        yield text
    for kind, lines in FIXTURES.items():
        if kind != "v":
            yield from (line.replace("@", f"@{kind}", 1) for line in lines)


def _families() -> Iterator[str]:
    for family, lines in FAMILIES.items():
        if family != "vectors":
            for line in lines:
                yield from expand(line, limit=40)


def commands(field_times: bool) -> st.SearchStrategy[str]:
    calls = pool(field_times)
    drawn = st.sampled_from(sorted(calls)).flatmap(lambda name: st.sampled_from(calls[name])).flatmap(_filled)
    own = [text for line in SOON.strip().splitlines() for text in expand(line)]
    filling = [line.replace("@", f"@{kind}", 1) for kind, lines in FIXTURES.items() for line in lines if kind != "v"]
    if not field_times:
        filling = [line for line in filling if not FIELD_TIMES.match(line)]
    return st.one_of(
        st.sampled_from(filling),
        drawn,
        drawn,
        drawn,
        st.sampled_from(own),
        st.sampled_from(["GET s", *WHOLE_DB]) if WHOLE_DB else drawn,
    )


@st.composite
def _filled(draw: st.DrawFn, text: str) -> str:
    return WORD.sub(lambda found: draw(st.sampled_from(KINDS[found[1]].split())), text) if "$" in text else text


def words(text: str) -> list[bytes]:
    """Of a command as the wire has it."""
    return list(call(text))


def histories(field_times: bool) -> st.SearchStrategy[History]:
    client = st.integers(0, CLIENTS - 1)
    command = commands(field_times)
    some: st.SearchStrategy[Sequence[str]] = st.lists(command, min_size=1, max_size=4)
    blocks = st.builds(
        lambda body, end: ("MULTI", *body, end), some, st.sampled_from(["EXEC", "EXEC", "EXEC", "DISCARD"])
    )
    opening = st.sampled_from([("MULTI",), ("WATCH s",), ("WATCH l 0", "MULTI"), ("SELECT 1",), ("SELECT 0",)])
    closing = st.sampled_from([("EXEC",), ("EXEC",), ("DISCARD",), ("UNWATCH",)])
    waiting = st.sampled_from(WAITING.split("\n")[1:-1]).map(lambda line: (line,))
    says = [
        st.builds(Say, client, said, st.booleans())
        for said in (some.map(tuple), some.map(tuple), blocks, opening, closing, waiting)
    ]
    others = st.one_of(
        st.sampled_from(Net), st.sampled_from(Net), st.builds(Wait, st.integers(1, 30)), st.builds(Leave, client)
    )
    return st.lists(st.one_of(*says, others), min_size=1, max_size=STEPS)
