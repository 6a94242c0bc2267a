"""Histories for hypothesis to draw and to shrink: what several clients say in which order, and what the network does.

Owns: the pool of commands (the differential corpus and the effects' families, on the same few hot keys) and the steps.
Refuses to know: how a history is played, what must hold afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from hypothesis import strategies as st

from resp.catalog import Catalog, Route
from tests.differential import calls_data
from tests.differential.corpus import FIXTURES, call, expand, templates
from tests.integration.effects_commands import FAMILIES

CLIENTS = 4

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
    "any": "",  # the keys of the history's theme
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

# The kinds of keys of one history: few, so that its commands meet.
THEMES = {
    "strings": frozenset("sn0"),
    "more strings": frozenset("febp0"),
    "lists": frozenset("lm0"),
    "sets": frozenset("tu0"),
    "sorted sets": frozenset("zy0"),
    "places": frozenset("gz0"),
    "hashes": frozenset("hk0"),
    "streams": frozenset("xw0"),
    "all": frozenset("snlthzx0"),
}
WIPED = ("all", "hashes", "lists")  # where whole dbs are flushed or swapped now and then
KEYS = frozenset("snfebplmtuzyghkwx0")

WAITING = """
BLPOP @l 0
BRPOP @0 @l 0
BLMOVE @l l2 LEFT RIGHT 0
BRPOPLPUSH @l @0 0
BZPOPMIN @z @0 0
BZPOPMAX @0 @z 0
XREAD BLOCK 0 STREAMS @x @0 $ $
XREADGROUP GROUP g1 c1 BLOCK 0 STREAMS @x >
"""

SOON = """
PEXPIRE $any [5|20|60]
SET $any v PX [5|20|60]
GETEX $any PX 20
PSETEX $any 20 v
"""

SCRIPT = r"EVAL redis.call('DEL',KEYS\x5b1\x5d)\x20redis.call('SADD',KEYS\x5b1\x5d,ARGV\x5b1\x5d) 1 $any $v"

# By kind of key: what makes it anew if it has expired, and is answered as if it had not.
BUILDING = {
    "s": "SETBIT s 800 1",
    "b": "BITFIELD b SET u8 80 0",
    "p": "PFADD p x y",
    "t": "SADD t new",
    "u": "SADD u new",
    "z": "ZADD z 9 new",
    "y": "ZINCRBY y 9 new",
    "g": "GEOADD g 15 37 new",
    "h": "HSET h new 1",
    "k": "HSETNX k new 1",
    "w": "XADD w 9-9 f v",
    "x": "XADD x 9-9 f v",
}

FIELD_TIMES = re.compile(r"^(HEXPIRE|HPEXPIRE|HGETEX|HSETEX)", re.IGNORECASE)
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


@dataclass(frozen=True, slots=True)
class Look:
    """All is let go; once it has come to rest, the sides are compared."""


Step = Say | Leave | Wait | Look | Net
History = list[Step]


@cache
def pool(theme: str, field_times: bool, texts: Callable[[], list[str]]) -> dict[str, list[str]]:
    """By name of the command, every call of a corpus that may change something, on keys of this theme alone."""
    found: dict[str, list[str]] = {}
    letters = THEMES[theme]
    for text in dict.fromkeys(texts()):
        name = text.split()[0].upper()
        fits = _letters(text) <= letters and (field_times or not FIELD_TIMES.match(name))
        if fits and name not in ("FLUSHALL", "FLUSHDB", "SWAPDB"):
            found.setdefault(name, []).append(text)
    about_it = [name for name, calls in found.items() if any(_letters(one) - {"0"} or "$any" in one for one in calls)]
    return {name: found[name] for name in about_it}


def _letters(text: str) -> set[str]:
    """The kinds of keys in it."""
    return {found for found in re.findall(r"[@$]([a-z])\d*\b(?![a-z_])", text) if found in KEYS}


@cache
def _corpus() -> list[str]:
    catalog = Catalog.default()
    found = []
    for table in TABLES:
        for template in templates(getattr(calls_data, table)):
            for variant in expand(template.removeprefix("~").strip()):
                for text in variant.split(" ; "):
                    spec = catalog.lookup(list(call(text)))
                    if spec.writes or spec.route is Route.BLOCKING:
                        found.append(text)
    return found


@cache
def _families() -> list[str]:
    return [
        text for family, lines in FAMILIES.items() if family != "vectors" for line in lines for text in expand(line, 40)
    ]


def _drawn(theme: str, field_times: bool, texts: Callable[[], list[str]]) -> st.SearchStrategy[str]:
    calls = pool(theme, field_times, texts)
    return st.sampled_from(sorted(calls)).flatmap(lambda name: st.sampled_from(calls[name]))


@cache
def commands(theme: str, field_times: bool) -> st.SearchStrategy[str]:
    letters = THEMES[theme]
    texts = st.one_of(
        *[_filling(theme, field_times)] * 2,
        *[_drawn(theme, field_times, _families)] * 4,
        *[_drawn(theme, field_times, _corpus)] * 3,
        _soon(),
    )
    if theme in WIPED:  # rare: it leaves little that could differ
        texts = st.one_of(*[texts] * 20, st.sampled_from(WHOLE_DB))
    return _with_values(texts, letters)


def _filling(theme: str, field_times: bool) -> st.SearchStrategy[str]:
    lines = [line.replace("@", f"@{kind}", 1) for kind in sorted(THEMES[theme] - {"0"}) for line in FIXTURES[kind]]
    return st.sampled_from([line for line in lines if field_times or not FIELD_TIMES.match(line)])


def _soon() -> st.SearchStrategy[str]:
    return st.sampled_from([text for line in SOON.strip().splitlines() for text in expand(line)])


def _with_values(texts: st.SearchStrategy[str], letters: frozenset[str]) -> st.SearchStrategy[str]:
    return texts.flatmap(lambda text: _filled(text, "".join(sorted(letters))))


@st.composite
def _filled(draw: st.DrawFn, text: str, letters: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] == "any":
            return draw(st.sampled_from(letters))
        values = KINDS[found[1]].split()
        if found[1] in KEYS:
            values = [value for value in values if value[0] in letters]
        return draw(st.sampled_from(values))

    return WORD.sub(value, text).replace("@", "") if "$" in text else text.replace("@", "")


def words(text: str) -> list[bytes]:
    """Of a command as the wire has it."""
    return list(call(text))


def histories(field_times: bool) -> st.SearchStrategy[History]:
    return st.sampled_from(sorted(THEMES)).flatmap(lambda theme: _histories(theme, field_times))


@cache
def _histories(theme: str, field_times: bool) -> st.SearchStrategy[History]:
    motifs = st.one_of(*[st.lists(_steps(theme, field_times), max_size=6)] * 2, *_motifs(theme, field_times))
    # Lists of lists: long enough to begin with, and every step can be left out.
    return st.lists(motifs, min_size=1, max_size=5).map(_joined)


def _joined(parts: Sequence[History]) -> History:
    return [step for part in parts for step in part]


def _some(theme: str, field_times: bool) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(commands(theme, field_times), min_size=1, max_size=4).map(tuple)


def _steps(theme: str, field_times: bool) -> st.SearchStrategy[Step]:
    client = st.integers(0, CLIENTS - 1)
    some = _some(theme, field_times)
    blocks = st.builds(
        lambda body, end: ("MULTI", *body, end), some, st.sampled_from(["EXEC", "EXEC", "EXEC", "DISCARD"])
    )
    opening = st.sampled_from([("MULTI",), ("WATCH 0",), ("WATCH nothing", "MULTI"), ("SELECT 1",), ("SELECT 0",)])
    closing = st.sampled_from([("EXEC",), ("EXEC",), ("DISCARD",), ("UNWATCH",)])
    letters = THEMES[theme]
    lines = [line for line in WAITING.strip().splitlines() if set(re.findall(r"@([a-z0])", line)) <= letters]
    waiting = st.sampled_from([line.replace("@", "") for line in lines]).map(lambda line: (line,)) if lines else blocks
    said = (some, some, some, blocks, opening, closing, waiting)
    says = [st.builds(Say, client, commands, st.booleans()) for commands in said]
    others = st.one_of(st.builds(Wait, st.integers(1, 40)), st.builds(Leave, client), st.just(Look()))
    return st.one_of(*says, st.sampled_from(Net), others)


def _motifs(theme: str, field_times: bool) -> list[st.SearchStrategy[History]]:
    """Schedules that single steps would seldom make, each with commands of its own."""
    some = _some(theme, field_times)
    plain = st.builds(Say, st.integers(0, 1), some)
    lag: tuple[st.SearchStrategy[Step], ...] = (st.just(Net.EFFECTS_WAIT), plain)
    late = st.sampled_from(sorted(THEMES[theme] - {"0"})).flatmap(lambda kind: _late(kind, some, field_times))
    cut = st.tuples(plain, *lag, st.just(Net.MIRROR_CUT), st.just(Look()))
    pinned = st.builds(lambda body: Say(2, ("WATCH nothing", "MULTI", *body)), some)
    race = st.tuples(
        plain,
        pinned,
        st.just(Net.PINS_UNHEARD),
        st.just(Say(2, ("EXEC",), then=False)),
        st.builds(Wait, st.integers(1, 3)),
        plain,
        st.just(Net.PINS_HEARD),
        st.just(Look()),
    )
    script = _with_values(st.just(SCRIPT), THEMES[theme])
    scripted = st.builds(lambda first, then: Say(0, (first, *then)), script, some)
    derived = st.tuples(plain, scripted, st.just(Look()))
    lists: list[st.SearchStrategy[Sequence[Step]]] = [late, late, cut, race, derived]
    return [motif.map(list) for motif in lists]


def _late(kind: str, some: st.SearchStrategy[tuple[str, ...]], field_times: bool) -> st.SearchStrategy[Sequence[Step]]:
    """A key is built upon while it lives, and has expired when the mirror side hears of it."""
    lines = [line for line in FIXTURES[kind] if field_times or not FIELD_TIMES.match(line)]
    there = Say(0, tuple(line.replace("@", kind, 1) for line in lines))
    expiry = st.sampled_from([f"PEXPIRE {kind} 10", f"PEXPIRE {kind} 25", f"GETEX {kind} PX 10"])
    building = st.one_of(st.just((BUILDING[kind],)), some) if kind in BUILDING else some
    alone = st.builds(lambda first, then: Say(0, (first, *then)), expiry, building)
    block = st.builds(lambda first, then: Say(0, ("MULTI", first, *then, "EXEC")), expiry, building)
    before = st.one_of(st.just(there), st.just(Say(0, (*there.commands, f"PEXPIRE {kind} 25"))))
    return st.tuples(
        before,
        st.just(Net.EFFECTS_WAIT),
        st.one_of(alone, block, st.builds(Say, st.just(0), building)),
        st.builds(Wait, st.integers(20, 60)),
        st.just(Net.EFFECTS_GO),
        st.just(Look()),
    )
