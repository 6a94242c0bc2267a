"""Random values of every type, for tests of the codec and of the comparison."""

from __future__ import annotations

from hypothesis import strategies as st

from backfill.values import Group, Hash, Opaque, Pending, SortedSet, State, Stream, Value

NOW_MS = 4_000_000_000_000  # in 2096: ahead of every server that these states are written to
PAST_MS = 1_700_000_000_000

texts = st.binary(max_size=6)
deadlines = st.integers(NOW_MS + 100_000, NOW_MS + 10**10)
hashes = st.dictionaries(texts, texts, min_size=1, max_size=6).flatmap(
    lambda fields: st.builds(Hash, st.just(fields), st.dictionaries(st.sampled_from(sorted(fields)), deadlines))
)
scores = st.floats(allow_nan=False).map(lambda score: score + 0.0)  # -0.0 is 0.0
sorted_sets = st.builds(SortedSet, st.dictionaries(texts, scores, min_size=1, max_size=6))


@st.composite
def groups(draw: st.DrawFn, ids: list[bytes]) -> Group:
    consumers = draw(st.lists(texts, unique=True, max_size=3))
    pending = [
        Pending(identity, draw(st.sampled_from(consumers)), draw(st.integers(0, PAST_MS)), draw(st.integers(0, 99)))
        for identity in (draw(st.lists(st.sampled_from(ids), unique=True)) if consumers and ids else [])
    ]
    read = draw(st.none() | st.integers(0, 100))
    return Group(draw(texts), draw(st.sampled_from([b"0-0", *ids])), read, tuple(sorted(consumers)), tuple(pending))


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """With some ids deleted; they may still be pending."""
    numbers = sorted(draw(st.sets(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=8)))
    ids = [b"%d-%d" % number for number in numbers]
    kept = [identity for identity in ids if draw(st.booleans())]
    entries = {identity: tuple(draw(st.lists(texts, min_size=2, max_size=2))) for identity in kept}
    deleted = [identity for identity in ids if identity not in kept]
    found = draw(st.lists(groups(ids), max_size=3, unique_by=lambda group: group.name))
    added = len(ids) + draw(st.integers(0, 5)) if ids else 0
    return Stream(entries, ids[-1] if ids else b"0-0", added, deleted[-1] if deleted else b"0-0", tuple(found))


values: dict[bytes, st.SearchStrategy[Value]] = {
    b"string": texts,
    b"list": st.lists(texts, min_size=1, max_size=6).map(tuple),
    b"set": st.frozensets(texts, min_size=1, max_size=6),
    b"zset": sorted_sets,
    b"hash": hashes,
    b"stream": streams(),
    b"a-module": st.builds(Opaque, st.binary(min_size=11, max_size=20)),
}


def states(key: bytes = b"k") -> st.SearchStrategy[State]:
    def of_kind(kind: bytes) -> st.SearchStrategy[State]:
        return st.builds(
            State,
            key=st.just(key),
            kind=st.just(kind),
            deadline_ms=st.none() | deadlines,
            read_ms=st.just(NOW_MS),
            value=values[kind],
        )

    return st.sampled_from(sorted(values)).flatmap(of_kind)
