"""The express way is a short cut, never another way: with and without it, everybody hears and gets the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.effects import Kind, compute, give_rules
from proxy.effects.model import NOTHING, Context, Effect
from proxy.express import Express
from proxy.items import READS
from proxy.journal import Journal, unsettled
from resp.catalog import Catalog
from resp.encode import encode
from tests.proxy.stage import ERROR, NIL, OK, ONE, Stage, bulk, number, words

COMMANDS = [
    "GET a",
    "GET b",
    "get a",
    "SET a 1",
    "SET b 2",
    "SET a 1 EX 9",
    "INCR a",
    "INCR b",
    "HSET h f v",
    "DEL a b",
]
COMMANDS += ["LPUSH l x", "MSET a 1 b 2", "SPOP s", "SELECT 1", "PING", "SORT l STORE m", "MULTI", "EXEC", "EXPIRE a 9"]
COMMANDS += ["SADD s x", "SADD s x y", "SREM s x", "LPOP l", "HDEL h f"]
ANSWERS = {"GET": bulk("v"), "SET": OK, "INCR": number(5), "HSET": ONE, "DEL": ONE, "LPUSH": ONE, "MSET": OK}
ANSWERS |= {
    "SPOP": bulk("x"),
    "SELECT": OK,
    "SORT": number(3),
    "EXPIRE": ONE,
    "SADD": ONE,
    "SREM": ONE,
    "HDEL": ONE,
    "LPOP": bulk("x"),
    "HELLO": b"%0\r\n",
    "EXEC": NIL,
}

Chunks = list[tuple[int, list[str], bool]]  # who, what, in one piece


class Server:
    """Answers every command by its name; every seventh is refused, if it is a write."""

    def __init__(self, *, errors: bool) -> None:
        self._errors = errors
        self._count = 0

    def answer(self, command: str) -> bytes:
        name = command.split()[0].upper()
        self._count += 1
        if self._errors and self._count % 7 == 0 and name in ("SET", "INCR", "HSET", "LPUSH"):
            return ERROR
        if self._count % 3 == 0 and name in ("SADD", "SREM", "LPOP", "HDEL"):
            return NIL if name == "LPOP" else number(0)
        return b":-1\r\n" if name == "PTTL" else ANSWERS.get(name, OK)


class NoExpress(Express):
    def take(self, session: Any, data: bytes) -> bool:
        return False


def play(chunks: Chunks, *, express: bool, errors: bool) -> list[Any]:
    stage = Stage()
    stage.hub.recorder._wall = lambda: 1.7e9
    try:
        if not express:
            stage.hub.express = NoExpress(stage.hub)
        clients = [stage.client(), stage.client()]
        serving = Server(errors=errors)
        said: list[Any] = []
        for number_, commands, whole in chunks:
            data = [encode(words(command)) for command in commands]
            for piece in [b"".join(data)] if whole else data:
                clients[number_].sends(piece)
            got = stage.lane.got()
            said.append(got)
            stage.lane.answers(*map(serving.answer, got))
            got = [command for command in stage.mirror.got() if not command.startswith(("PTTL", "MULTI", "TIME"))]
            said.append(sorted(got))  # a pipeline asks for all PTTLs first
            said.append([client.hears() for client in clients])
        return said
    finally:
        stage.close()


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=6), st.booleans()),
        max_size=8,
    ),
    st.booleans(),
)
def test_the_same_is_sent_and_heard(chunks: Chunks, errors: bool) -> None:
    """But for the mirror's answers, which are not given here."""
    assert play(chunks, express=True, errors=errors) == play(chunks, express=False, errors=errors)


def pipeline(*commands: str) -> bytes:
    return b"".join(encode(words(command)) for command in commands)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What `take` said, chunk by chunk."""
    said: list[bool] = []
    take = Express.take

    def watched(self: Express, session: Any, data: bytes) -> bool:
        said.append(take(self, session, data))
        return said[-1]

    monkeypatch.setattr(Express, "take", watched)
    return said


@pytest.mark.parametrize(
    ("chunk", "goes"),
    [
        (pipeline("GET a"), True),
        (pipeline("SET a 1"), True),
        (pipeline("GET a", "STRLEN b"), True),
        (pipeline("SET a 1", "SET b 2"), True),
        (pipeline("INCR a", "INCR a"), True),
        (pipeline("SET a 1", "INCR a"), False),  # of two shapes
        (pipeline("SPOP s", "SPOP s"), False),  # its effect depends on the reply
        (pipeline("MSET a 1 b 2", "MSET c 1 a 2"), True),
        (pipeline("MSET a 1", "MSET b 1 c 1"), False),
        (pipeline(*["MSET" + 31 * " key thirteen-byte"] * 60), True),  # more than MAX_BYTES, of small arguments
        (pipeline(*["SET key " + "x" * 1000] * 60), False),
        (pipeline("SET key " + "x" * 1000), True),
        (pipeline("SET key " + "x" * 1000 + "*"), True),
        (pipeline("SET key " + "*" + "x" * 1000), True),
        (pipeline("SET key " + "x" * 20_000), True),
        (pipeline("SET key " + "x" * 9998)[:-10_000], False),
        (pipeline("MSETNX a 1", "MSETNX b 1"), False),
        (pipeline("RENAME a b", "RENAME b c"), False),  # its keys are known, its effect is not
        (pipeline("GET a", "SET a 1"), False),
        (pipeline("PING"), True),
        (b"PING\r\n", False),
        (pipeline("GET a")[:-1], False),
        (pipeline("SUBSCRIBE c"), False),
    ],
)
def test_what_goes(stage: Stage, taken: list[bool], chunk: bytes, goes: bool) -> None:
    stage.client().sends(chunk)
    assert taken == [goes]


def test_a_big_value_is_sent_on_as_it_came(stage: Stage, taken: list[bool]) -> None:
    """Many at once: their bytes are not put together, neither on the lane nor on the mirror connection."""
    value = "v" * 40_000
    clients = [stage.client() for _ in range(3)]
    for number_, client in enumerate(clients):
        client.session.read(encode([b"SET", b"k%d" % number_, value.encode()]))
    clients[0].session.read(encode([b"APPEND", b"k", value.encode()]))
    assert taken == [True] * 4
    stage.serve()
    said = [*(f"SET k{number_} {value}" for number_ in range(3)), f"APPEND k {value}"]
    assert stage.lane.got() == said
    stage.lane.answers(OK, OK, OK, number(40_000))
    assert stage.mirror.got() == [*said[:3], "PTTL k", said[3]]
    stage.mirror.answers(OK, OK, OK, number(-1), number(40_000))
    assert stage.hub.mirror.judge.settled == 4 and not stage.dirty


def test_it_steps_aside_for_a_waiter(stage: Stage, taken: list[bool]) -> None:
    waiting, client = stage.client(), stage.client()
    waiting.says("BLPOP a 0")
    stage.lane.got()
    client.sends(pipeline("RPUSH a x"))
    client.sends(pipeline("SET a 1", "SET b 1"))
    assert taken[-2:] == [False, False]


def test_a_pipelines_replies_come_in_pieces(stage: Stage) -> None:
    one, two = stage.client(), stage.client()
    one.sends(pipeline("GET a", "GET b", "GET c"))
    two.sends(pipeline("SET x 1", "SET y 2", "SET z 3"))
    assert stage.hub.lane.pending == 6
    stage.lane.answers(bulk("a"), bulk("b"))
    assert stage.hub.lane.pending == 4 and stage.hub.lane.asked == 6
    stage.lane.answers(bulk("c"), OK)
    assert stage.hub.lane.pending == 2 and not stage.mirror.got()
    stage.lane.answers(OK, OK)
    assert stage.hub.lane.idle and stage.hub.lane.asked == stage.hub.lane.answered == 6
    assert one.hears() == bulk("a") + bulk("b") + bulk("c")
    assert two.hears() == OK * 3
    assert stage.mirror.got() == ["SET x 1", "SET y 2", "SET z 3"]
    stage.mirror.answers(OK)
    assert stage.hub.mirror.queued == 2
    stage.mirror.answers(OK, OK)
    assert stage.hub.mirror.idle and stage.hub.mirror.queued_bytes == 0 and not stage.dirty


def test_reads_that_were_lost_are_sent_again_from_where_they_were(stage: Stage) -> None:
    client = stage.client()
    client.sends(pipeline("GET a", "GET b", "GET c"))
    stage.lane.answers(bulk("a"))
    stage.lane.breaks()
    stage.new_lane()
    stage.hub.lane.replay(stage.losses[0].reads)
    stage.hub.resume("the serving side is not connected")
    stage.serve()
    assert stage.lane.got() == ["GET b", "GET c"]
    stage.lane.answers(bulk("b"), bulk("c"))
    assert client.hears() == bulk("a") + bulk("b") + bulk("c")
    assert client.session.owed == 0 and stage.hub.lane.idle


def test_one_wrong_reply_of_a_pipeline(stage: Stage) -> None:
    client = stage.client()
    client.sends(pipeline("SET x 1", "SET y 2", "SET z 3"))
    stage.lane.answers(OK, OK, OK)
    stage.mirror.answers(OK, ERROR, OK)
    assert list(stage.dirty) == [(0, b"y")]


@pytest.mark.parametrize(
    ("pttls", "dirty"),
    [((-1, -1), []), ((-2, -1), [(0, b"x")]), ((-1, 3), [(0, b"y")]), ((10**6, 10**6), [])],
)
def test_the_expiry_guard_of_a_pipeline(stage: Stage, pttls: tuple[int, int], dirty: list[tuple[int, bytes]]) -> None:
    client = stage.client()
    client.sends(pipeline("INCR x", "INCR y", "INCR x"))
    stage.lane.answers(number(4), number(5), number(5))
    assert stage.mirror.got() == ["PTTL x", "PTTL y", "INCR x", "INCR y", "INCR x"]
    stage.mirror.answers(*map(number, pttls), number(4), number(5), number(5))
    assert sorted(stage.dirty) == dirty


def test_a_pipeline_of_msets(stage: Stage) -> None:
    """Each settles, or not, with all of its keys."""
    client = stage.client()
    client.sends(pipeline("MSET a 1 b 2", "MSET c 3 d 4", "MSET e 5 f 6"))
    assert stage.lane.got() == ["MSET a 1 b 2", "MSET c 3 d 4", "MSET e 5 f 6"]
    stage.lane.answers(OK, OK, OK)
    assert stage.mirror.got() == ["MSET a 1 b 2", "MSET c 3 d 4", "MSET e 5 f 6"]
    stage.mirror.answers(OK, ERROR, OK)
    assert sorted(stage.dirty) == [(0, b"c"), (0, b"d")]
    assert (stage.hub.mirror.judge.settled, stage.hub.mirror.judge.differed, stage.hub.mirror.queued_bytes) == (2, 1, 0)


@pytest.mark.parametrize("chunk", [pipeline("MSET a 1 b 2", "MSET c 3 d 4"), pipeline("MSET a 1 b 2 c 3 d 4")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_mirror_is_not_there_for_msets(stage: Stage, chunk: bytes, when: str) -> None:
    client = stage.client()
    client.sends(chunk)
    if when == "before":
        stage.mirror.breaks()
    stage.lane.answers(*[OK] * chunk.count(b"MSET"))
    if when == "after":
        stage.mirror.breaks()
    assert sorted(stage.dirty) == [(0, key) for key in (b"a", b"b", b"c", b"d")]


def test_who_is_guarded_has_one_key() -> None:
    catalog = Catalog.default()
    give_rules(catalog)
    kinds = {spec.name: {spec.rule.kind, spec.rule.plain_kind} for spec in catalog if spec.rule is not None}
    guarded = [name for name, its in kinds.items() if its & {Kind.AS_SENT_GUARDED, Kind.AS_SENT_PUSHED}]
    assert len(guarded) > 10 and all(catalog.specs[name].one_key for name in guarded)


def test_who_is_mirrored_as_sent_is_not_rewritten() -> None:
    catalog = Catalog.default()
    give_rules(catalog)
    rewritten = [spec for spec in catalog if spec.rewritten]
    assert rewritten and all(set(spec.rule.answers) == {None} for spec in rewritten)


NO_DEADLINE = """APPEND DECR DECRBY GEOADD HDEL HINCRBY HMSET HSET INCR INCRBY LPOP LPUSH LSET LTRIM RPOP RPUSH SADD SET
SETBIT SETRANGE SREM VADD XACKDEL XDELEX XSETID ZADD ZREM"""


def test_none_that_are_mirrored_together_gives_its_key_a_deadline() -> None:
    """Guards stand in front of all effects: they would not see it. SET is here with a key and a value only."""
    catalog = Catalog.default()
    give_rules(catalog)
    ruled = [spec for spec in catalog if spec.one_key and spec.rule is not None]
    single = {spec.name.decode() for spec in ruled if set(spec.rule.answers) != {None}}
    assert single <= set(NO_DEADLINE.split()) and len(single) > 15
    assert [argc for argc, proof in enumerate(catalog.specs[b"SET"].rule.answers) if proof is not None] == [3]


def test_one_list_of_a_pipeline_is_new_and_another_is_not(stage: Stage) -> None:
    stage.client().sends(pipeline("RPUSH a x", "RPUSH b x"))
    stage.lane.answers(number(1), number(9))
    assert stage.mirror.got() == ["PTTL a", "PTTL b", "RPUSH a x", "RPUSH b x"]


@pytest.mark.parametrize("whole", [True, False])
def test_what_changed_nothing_is_not_mirrored(stage: Stage, taken: list[bool], whole: bool) -> None:
    client = stage.client()
    for commands in [["SADD s x", "SADD t x", "SADD u x"], ["LPOP l", "LPOP m", "LPOP n"]]:
        for chunk in [pipeline(*commands)] if whole else map(pipeline, commands):
            client.session.read(chunk)
    stage.serve()
    assert set(taken) == {True}
    stage.lane.answers(ONE, number(0), ONE, NIL, bulk("e"), NIL)
    got = stage.mirror.got()
    assert sorted(got) == ["LPOP m", "PTTL s", "PTTL u", "SADD s x", "SADD u x"] and got[-1] == "LPOP m"
    stage.mirror.answers(*[number(-1) if command.startswith("PTTL") else ONE for command in got[:-1]], bulk("e"))
    assert stage.hub.mirror.judge.settled == 3 and not stage.dirty


def test_unchanged_is_what_computes_to_nothing() -> None:
    catalog = Catalog.default()
    give_rules(catalog)
    context = Context(db=0, resp=2, now_ms=0)
    frames = [
        NIL,
        b"*-1\r\n",
        b"_\r\n",
        b"*0\r\n",
        number(0),
        ONE,
        number(7),
        bulk("x"),
        bulk(""),
        b"*1\r\n$1\r\nx\r\n",
    ]
    conditional = [spec for spec in catalog if spec.rule is not None and spec.rule.unchanged]
    assert {spec.name for spec in conditional} == {b"SADD", b"SREM", b"ZREM", b"HDEL", b"LPOP", b"RPOP"}
    for spec in conditional:
        args = [spec.name, b"k", b"m"]
        answers = frames[:4] + frames[7:] if b"POP" in spec.name else frames[4:7]
        for frame in answers:
            effect = compute(spec, args, frame, context)
            as_sent = Effect((tuple(args),), (frame,), (b"k",), (b"k",) if spec.rule.guarded else ())
            assert effect == (NOTHING if frame in spec.rule.unchanged else as_sent)


def test_the_mirror_is_lost_in_the_middle_of_a_pipeline(stage: Stage) -> None:
    client = stage.client()
    client.sends(pipeline("SET x 1", "SET y 2"))
    stage.lane.answers(OK, OK)
    stage.mirror.answers(OK)
    stage.mirror.breaks()
    assert sorted(stage.dirty) == [(0, b"x"), (0, b"y")]
    assert stage.hub.mirror.queued == 0 and stage.hub.mirror.queued_bytes == 0


def test_the_clients_of_a_lost_pipeline(stage: Stage) -> None:
    """Who has a write in flight is disconnected, and its keys are dirty."""
    reader, writer = stage.client(), stage.client()
    reader.sends(pipeline("GET a", "GET b"))
    writer.sends(pipeline("SET x 1", "SET y 2"))
    stage.lane.breaks()
    assert sorted(stage.dirty) == [(0, b"x"), (0, b"y")]
    assert not writer.session.open and reader.session.open
    assert [item[0] for item in stage.losses[0].reads] == [READS]


def test_effects_of_several_clients_are_answered_together(stage: Stage) -> None:
    one, two = stage.client(), stage.client(db=2)
    one.says("SET a 1")
    one.says("SET b 1")
    two.says("SET c 1")
    one.says("INCR n")
    one.says("SET d 1")
    stage.lane.answers(OK, OK, OK, OK, OK, number(7), OK)
    assert stage.mirror.got() == [
        "SET a 1",
        "SET b 1",
        "SELECT 2",
        "SET c 1",
        "SELECT 0",
        "PTTL n",
        "INCR n",
        "SET d 1",
    ]
    assert stage.hub.mirror.queued == 8
    stage.mirror.answers(OK, ERROR, OK, OK, OK, number(-1), number(8))
    assert stage.hub.mirror.queued == 1
    assert sorted(stage.dirty) == [(0, b"b")]
    stage.mirror.answers(OK)
    assert sorted(stage.dirty) == [(0, b"b"), (0, b"n")]
    assert stage.hub.mirror.idle and stage.hub.mirror.queued_bytes == 0
    assert (stage.hub.mirror.judge.settled, stage.hub.mirror.judge.differed) == (3, 2)


def test_guarded_effects_of_several_clients_are_answered_together(stage: Stage) -> None:
    """Each behind its own PTTL; one that is near its deadline costs its own key only."""
    one, two = stage.client(), stage.client()
    one.says("INCR a")
    two.says("LPUSH b x")
    one.says("HSET c f v")
    two.says("SET d 1")
    stage.lane.answers(number(7), number(9), number(0), OK)
    assert stage.mirror.got() == ["PTTL a", "INCR a", "PTTL b", "LPUSH b x", "PTTL c", "HSET c f v", "SET d 1"]
    stage.mirror.answers(number(-1), number(7), number(10), number(9), number(10**6))
    assert stage.hub.mirror.queued == 2
    stage.mirror.answers(number(0), OK)
    assert sorted(stage.dirty) == [(0, b"b")]
    assert stage.hub.mirror.idle and stage.hub.mirror.queued_bytes == 0
    assert (stage.hub.mirror.judge.settled, stage.hub.mirror.judge.differed) == (3, 1)


def test_guarded_effects_of_one_kind_are_answered_together(stage: Stage) -> None:
    """Behind the PTTLs of all; one that is near its deadline costs its own key only."""
    for key in ("a", "b", "c", "b"):
        stage.client().says(f"HSET {key} f v")
    stage.lane.answers(*[number(0)] * 4)
    assert stage.mirror.got() == [
        *("PTTL a", "PTTL b", "PTTL c"),
        *("HSET a f v", "HSET b f v", "HSET c f v", "HSET b f v"),
    ]
    stage.mirror.answers(number(-1), number(10), number(10**6), *[number(0)] * 4)
    assert sorted(stage.dirty) == [(0, b"b")]
    assert stage.hub.mirror.idle and stage.hub.mirror.queued_bytes == 0
    assert (stage.hub.mirror.judge.settled, stage.hub.mirror.judge.differed) == (2, 2)


def test_a_guard_is_not_asked_in_front_of_what_makes_its_key(stage: Stage) -> None:
    """Its answer would be that there is no such key."""
    for client in [stage.client() for _ in range(2)]:
        client.says("RPUSH q x")
    stage.lane.answers(number(1), number(2))
    assert stage.mirror.got() == ["RPUSH q x", "PTTL q", "RPUSH q x"]
    stage.mirror.answers(number(1), number(-1), number(2))
    assert stage.hub.mirror.judge.settled == 2 and not stage.dirty


def test_one_error_among_the_answers_of_several_clients(stage: Stage) -> None:
    for number_ in range(3):
        stage.client().says(f"INCR k{number_}")
    stage.lane.answers(number(7), ERROR, number(8))
    assert stage.mirror.got() == ["PTTL k0", "INCR k0", "PTTL k2", "INCR k2"]


def test_effects_stay_in_front_of_a_read_of_our_own_behind_them(stage: Stage) -> None:
    """The copy that it leads to shows what they did."""
    stage.client().says("SET a 1")
    stage.hub.lane.call(0, [[b"GET", b"a"]], lambda frame: stage.hub.mirror.call(0, [[b"GET", b"a"]], lambda _: None))
    stage.client().says("SET a 2")
    stage.hub.flush()
    stage.lane.answers(OK, OK, b"+QUEUED\r\n", b"*1\r\n$1\r\n1\r\n", OK)
    assert stage.mirror.got() == ["SET a 1", "MULTI", "GET a", "EXEC", "SET a 2"]


def test_a_defect_while_effects_are_queued_together(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of them is not known."""
    clients = [stage.client() for _ in range(2)]
    for number_, client in enumerate(clients):
        client.says(f"SET k{number_} 1")

    def breaks(*args: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(stage.hub.mirror, "singles", breaks)
    stage.lane.answers(OK, OK)
    assert sorted(stage.dirty) == [(0, b"k0"), (0, b"k1")]


def test_the_client_of_a_lost_write(stage: Stage) -> None:
    writer = stage.client()
    writer.says("SET x 1")
    stage.lane.breaks()
    assert sorted(stage.dirty) == [(0, b"x")]
    assert not writer.session.open


def test_a_full_queue_takes_no_more_of_those_that_came_together(stage: Stage) -> None:
    for number_ in range(3):
        stage.client().says(f"SET k{number_} {number_}")
    stage.hub.mirror._limit = 1
    stage.lane.answers(OK, OK, OK)
    assert stage.mirror.got() == ["SET k0 0"]
    assert sorted(stage.dirty) == [(0, b"k1"), (0, b"k2")]


def test_a_key_that_is_copied_in_pages_is_looked_at(stage: Stage) -> None:
    """And so is what comes together with what is written to it."""
    seen: list[list[bytes]] = []
    stage.hub.recorder._mirror.as_sent = stage.hub.recorder._mirror.singles = None  # type: ignore[method-assign, assignment]
    stage.hub.recorder.answered = lambda spec, args, *rest: seen.append(args)  # type: ignore[method-assign]
    stage.client().says("SET a 1")
    stage.client().says("SET b 2")
    stage.hub.repair.copies_in_pages.paged[0, b"a"] = None  # type: ignore[assignment]
    stage.lane.answers(OK, OK)
    assert seen == [[b"SET", b"a", b"1"], [b"SET", b"b", b"2"]]


def test_keys_of_several_lengths_are_guarded(stage: Stage) -> None:
    for key in ("a", "bb", "a"):
        stage.client().says(f"INCR {key}")
    stage.lane.answers(number(7), number(8), number(9))
    assert stage.mirror.got() == ["PTTL a", "PTTL bb", "INCR a", "INCR bb", "INCR a"]


def test_what_was_sent_is_settled_whatever_is_sent_behind_it(stage: Stage) -> None:
    """A target that is always some commands behind: what it has answered is not kept until it has answered all."""
    client = stage.client()
    client.says("SET a 1")
    stage.lane.answers(OK)
    for number_ in range(5):
        client.says(f"SET a {number_}")
        stage.lane.answers(OK)
        one_effect = stage.hub.mirror.queued_bytes // 2
        stage.mirror.answers(OK)
        assert stage.hub.mirror.judge.settled == number_ + 1
        assert stage.hub.mirror.queued_bytes == one_effect


def test_it_notes_all_keys_of_msets(stage: Stage, tmp_path: Path) -> None:
    stage.hub.journal = journal = Journal(tmp_path)
    journal.open(settled=True)
    stage.client(db=3).sends(pipeline("MSET a 1 bb 2", "MSET c 3 d 4"))
    journal.close()
    assert sorted(unsettled(tmp_path) or ()) == [(3, b"a"), (3, b"bb"), (3, b"c"), (3, b"d")]


def test_it_notes_keys_of_several_dbs_together(stage: Stage, tmp_path: Path) -> None:
    stage.hub.journal = journal = Journal(tmp_path)
    journal.open(settled=True)
    for db in (0, 3, 0):
        stage.client(db=db).session.read(encode([b"SET", b"k%d" % db, b"v"]))
    stage.serve()
    journal.close()
    assert sorted(unsettled(tmp_path) or ()) == [(0, b"k0"), (3, b"k3")]


def test_it_notes_keys_before_they_are_sent(stage: Stage) -> None:
    noted: list[tuple[int, bytes]] = []
    committed, sent = (-1, b"committed"), (-1, b"sent")

    class Notes:
        def note(self, db: int, keys: list[bytes]) -> None:
            noted.extend((db, key) for key in keys)

        note_many = note

        def commit(self) -> None:
            if noted and noted[-1] not in (committed, sent):
                noted.append(committed)

    stage.hub.journal = Notes()  # type: ignore[assignment]
    stage.lane.send = lambda data: noted.append(sent)  # type: ignore[method-assign, assignment]
    client = stage.client(db=1)
    client.sends(pipeline("SET a 1"))
    client.sends(pipeline("SET b 1", "SET c 1"))
    client.sends(pipeline("MSET d 1 e 1"))
    client.says("MULTI", "SET f 1", "EXEC")
    assert noted == [
        *((1, b"a"), committed, sent),
        *((1, b"b"), (1, b"c"), committed, sent),
        *((1, b"d"), (1, b"e"), committed, sent),
        *((1, b"f"), committed, sent),
    ]
