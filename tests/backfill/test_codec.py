"""The codec's decisions: which commands, how replies are understood, what bounds hold."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import codec, rebuild
from backfill.codec import Form, Unreadable, WrongType, losses, parse, read_commands, refused, write_commands
from backfill.values import Group, Hash, Opaque, Pending, SortedSet, State, Stream, Value
from tests.backfill.strategies import states

OLD, NEW = ("redis", 6, 2), ("redis", 8, 2)
MODERN = frozenset({b"PEXPIRETIME", b"HPEXPIRETIME", b"HPEXPIREAT"})
CLOCK = [b"1700000000", b"123999"]
READ_MS = 1_700_000_000_123
ERROR = hiredis.ReplyError


def written(value: Value | None, deadline_ms: int | None = None, **options: Any) -> list[list[bytes]]:
    state = State(b"k", b"?", deadline_ms, value=value, payload=options.pop("payload", None))
    settings: dict[str, Any] = {"shift_ms": 0, "target": MODERN, "version": NEW}
    return write_commands(state, **settings | options)


# --- reading ---


@pytest.mark.parametrize(("form", "last"), [(Form.DUMP, [b"DUMP", b"k"]), (Form.STRUCT, [b"TYPE", b"k"])])
def test_the_clock_is_read_next_to_the_deadline(form: Form, last: list[bytes]) -> None:
    assert read_commands(b"k", form) == [[b"TIME"], [b"PTTL", b"k"], last]
    assert read_commands(b"k", form, known=MODERN) == [[b"PEXPIRETIME", b"k"], [b"TIME"], last]


def test_reads_by_type() -> None:
    for kind, command in (
        (b"string", [b"GET", b"k"]),
        (b"hash", [b"HGETALL", b"k"]),
        (b"stream", [b"XINFO", b"STREAM", b"k", b"FULL", b"COUNT", b"0"]),
    ):
        assert read_commands(b"k", Form.STRUCT, kind)[3:] == [command]
        assert read_commands(b"k", Form.STRUCT, WrongType(kind))[3:] == [command]
    assert read_commands(b"k", Form.STRUCT, b"a-module")[3:] == [[b"DUMP", b"k"], [b"EXISTS", b"k"]]
    assert len(read_commands(b"k", Form.STRUCT, b"none")) == 3


def test_deadlines_of_many_fields_are_asked_for_in_bounded_commands() -> None:
    fields = tuple(b"%d" % index for index in range(5000))
    commands = read_commands(b"k", Form.STRUCT, WrongType(b"hash", fields), known=MODERN)[5:]
    assert [command[:3] for command in commands] == [[b"HPEXPIRETIME", b"k", b"FIELDS"]] * 3
    assert [int(command[3]) for command in commands] == [len(command) - 4 for command in commands]
    assert tuple(name for command in commands for name in command[4:]) == fields


@pytest.mark.parametrize(
    ("head", "deadline_ms"),
    [
        ([CLOCK, -1], None),
        ([CLOCK, 0], READ_MS),
        ([CLOCK, 877], READ_MS + 877),
        ([-1, CLOCK], None),
        ([1_700_000_999_000, CLOCK], 1_700_000_999_000),
    ],
)
def test_deadlines(head: list[Any], deadline_ms: int | None) -> None:
    payload = b"\0\5hello"
    assert parse(b"k", Form.DUMP, [*head, payload]) == State(b"k", b"string", deadline_ms, READ_MS, payload, size=7)
    expected = State(b"k", b"string", deadline_ms, READ_MS, value=b"hello", size=5)
    assert parse(b"k", Form.STRUCT, [*head, b"string", b"hello"]) == expected


@pytest.mark.parametrize(
    "replies",
    [
        [CLOCK, -2, b"none"],
        [-2, CLOCK, b"none", None],
        [CLOCK, -2, b"string", None],  # 6.2 expires keys in the middle of an EXEC
        [CLOCK, -2, b"list", []],
        [CLOCK, -2, b"set", set()],
        [CLOCK, -2, b"zset", []],
        [CLOCK, -2, b"hash", {}],
        [CLOCK, -2, b"hash", [], None],
        [CLOCK, -2, b"stream", ERROR("ERR no such key")],
        [CLOCK, -2, b"a-module", None, 0],
    ],
)
def test_a_missing_key(replies: list[Any]) -> None:
    assert parse(b"k", Form.STRUCT, replies) == State(b"k", b"none", read_ms=READ_MS)
    assert parse(b"k", Form.DUMP, [CLOCK, -2, None]) == State(b"k", b"none", read_ms=READ_MS)


WRONGTYPE = ERROR("WRONGTYPE Operation against a key holding the wrong kind of value")


@pytest.mark.parametrize(
    ("kind", "replies"),
    [
        (b"string", []),
        (b"string", [WRONGTYPE]),
        (b"string", [[b"a"]]),
        (b"string", [b"the payload of what was thought a module", 1]),
        (b"list", [b"payload", 1]),
        (b"zset", [[b"a", b"not a score"]]),
        (b"zset", [[b"a"]]),
        (b"stream", [[b"a", b"b"]]),
        (b"a-module", [b"a string"]),
    ],
)
def test_a_read_for_another_type(kind: bytes, replies: list[Any]) -> None:
    assert parse(b"k", Form.STRUCT, [CLOCK, -1, kind, *replies]) == WrongType(kind)


def test_what_the_server_refuses_to_show_is_unreadable() -> None:
    refusal = ERROR("NOPERM this user has no permissions to run the 'dump' command")
    for replies in ([CLOCK, -1, refusal], [refusal, -1, b"x"], [CLOCK, refusal, b"x"]):
        assert parse(b"k", Form.DUMP, replies) == Unreadable(str(refusal))
    assert parse(b"k", Form.STRUCT, [CLOCK, -1, b"string", refusal]) == Unreadable(str(refusal))


def test_hash_fields_with_deadlines_take_a_second_read() -> None:
    flat = [b"a", b"1", b"b", b"2"]
    head = [CLOCK, -1, b"hash"]
    fields = {b"a": b"1", b"b": b"2"}

    def value(replies: list[Any], believed: Any = None) -> Any:
        state = parse(b"k", Form.STRUCT, [*head, *replies], believed)
        return state.value if isinstance(state, State) else state

    again = WrongType(b"hash", (b"a", b"b"))
    assert value([flat]) == Hash(fields)
    assert value([fields, b"listpack"]) == Hash(fields)
    assert value([flat, b"hashtable"]) == again
    assert value([flat, b"listpackex"], WrongType(b"hash")) == again
    assert value([flat, b"hashtable", [-1, 55]], again) == Hash(fields, {b"b": 55})
    assert value([flat, b"hashtable", [7], [-1]], again) == Hash(fields, {b"a": 7})
    assert value([[*flat, b"new", b"3"], b"hashtable", [-1, 55]], again) == WrongType(b"hash", (b"a", b"b", b"new"))
    assert value([[b"b", b"2"], b"hashtable", [-2, 55]], again) == Hash({b"b": b"2"}, {b"b": 55})


junk = st.recursive(
    st.none() | st.integers() | st.binary(max_size=4) | st.floats() | st.just(WRONGTYPE),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=2), inner, max_size=2),
)


@given(st.sampled_from([b"string", b"list", b"set", b"zset", b"hash", b"stream", b"odd"]), st.lists(junk, max_size=3))
def test_no_reply_is_too_odd(kind: bytes, replies: list[Any]) -> None:
    parse(b"k", Form.STRUCT, [CLOCK, -1, kind, *replies])


# --- writing ---


def test_restore() -> None:
    assert written(None, payload=b"p") == [[b"RESTORE", b"k", b"0", b"p", b"REPLACE"]]
    expected = [[b"RESTORE", b"k", b"1500", b"p", b"REPLACE", b"ABSTTL"]]
    assert written(None, 1000, payload=b"p", shift_ms=500) == expected
    assert written(Opaque(b"p"), 1000, shift_ms=500) == expected


def test_a_deadline_never_becomes_none() -> None:
    """0 would mean no deadline at all."""
    assert written(None, 1000, payload=b"p", shift_ms=-1000)[0][2] == b"1"
    assert written(b"v", 1000, shift_ms=-5000) == [[b"SET", b"k", b"v", b"PXAT", b"1"]]


def test_a_missing_key_is_deleted() -> None:
    assert write_commands(State(b"k", b"none"), shift_ms=0, target=MODERN, version=NEW) == [[b"DEL", b"k"]]


def test_rebuilding() -> None:
    assert written(b"v") == [[b"SET", b"k", b"v"]]
    assert written((b"a", b"a")) == [[b"DEL", b"k"], [b"RPUSH", b"k", b"a", b"a"]]
    assert written(SortedSet({b"a": 0.1, b"b": float("-inf"), b"c": 1e300}), 9) == [
        [b"DEL", b"k"],
        [b"ZADD", b"k", b"0.1", b"a", b"-inf", b"b", b"1e+300", b"c"],
        [b"PEXPIREAT", b"k", b"9"],
    ]
    hash_ = Hash({b"a": b"1", b"b": b"2", b"c": b"3"}, {b"a": 7, b"c": 7})
    plain = [[b"DEL", b"k"], [b"HSET", b"k", b"a", b"1", b"b", b"2", b"c", b"3"]]
    assert written(hash_, shift_ms=1) == [*plain, [b"HPEXPIREAT", b"k", b"8", b"FIELDS", b"2", b"a", b"c"]]
    assert written(hash_, target=frozenset()) == plain


@given(states(), st.sampled_from([OLD, NEW]))
def test_any_state_has_commands(state: State, version: tuple[str, int, int]) -> None:
    commands = write_commands(state, shift_ms=0, target=MODERN, version=version)
    assert commands
    assert all(isinstance(word, bytes) for command in commands for word in command)
    assert all(len(command) > 1 for command in commands)


@pytest.mark.parametrize(
    "value",
    [
        tuple([b"x" * 100] * 10_000),
        frozenset(b"%0100d" % index for index in range(10_000)),
        SortedSet({b"%d" % index: index for index in range(10_000)}),
        Hash({b"%d" % index: b"x" * 1000 for index in range(3_000)}, {b"%d" % index: 9 for index in range(3_000)}),
    ],
)
def test_commands_are_bounded_and_complete(value: Value) -> None:
    commands = written(value)[1:]
    assert len(commands) > 1
    for command in commands:
        assert len(command) <= rebuild.MAX_COMMAND_ARGS + 5
        assert sum(map(len, command)) < rebuild.MAX_COMMAND_BYTES + 10_000
    words = [word for command in commands if command[0] != b"HPEXPIREAT" for word in command[2:]]
    match value:
        case tuple():
            assert words == list(value)
        case frozenset():
            assert sorted(words) == sorted(value)
        case SortedSet():
            assert dict(zip(words[1::2], map(float, words[::2]), strict=True)) == value.scores
        case Hash():
            assert dict(zip(words[::2], words[1::2], strict=True)) == value.fields


def test_a_huge_string_goes_in_pieces() -> None:
    value = b"0123456789" * 2_000_000
    commands = written(value, 99)
    assert [command[0] for command in commands] == [b"SET", b"APPEND", b"APPEND"]
    assert b"".join(command[2] for command in commands) == value
    assert commands[0][3:] == [b"PXAT", b"99"]


def test_what_a_target_cannot_hold_is_named() -> None:
    hash_ = State(b"k", b"hash", value=Hash({b"a": b"1"}, {b"a": 7}))
    assert losses(hash_, target=MODERN, version=NEW) == ()
    (text,) = losses(hash_, target=frozenset(), version=OLD)
    assert text.startswith("1 hash fields lose their TTL")
    group = Group(b"g", b"0-0", None, (b"c",), (Pending(b"9-9", b"c", 1, 1), Pending(b"1-1", b"c", 1, 1)))
    stream = State(b"k", b"stream", value=Stream({}, b"5-0", groups=(group,)))
    assert losses(stream, target=MODERN, version=OLD) == ()
    (text,) = losses(stream, target=MODERN, version=NEW)
    assert text.startswith("1 pending entries")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (ERROR("ERR DUMP payload version or checksum are wrong"), True),
        (ERROR("ERR Bad data format"), True),
        (ERROR("ERR unknown command 'RESTORE', with args beginning with: "), True),
        (ERROR("NOPERM this user has no permissions to run the 'restore' command"), True),
        (ERROR("OOM command not allowed when used memory > 'maxmemory'."), False),
        (ERROR("READONLY You can't write against a read only replica."), False),
        (b"OK", False),
        (b"ERR Bad data format", False),
    ],
)
def test_refusals(reply: Any, expected: bool) -> None:
    assert refused(reply) == expected


def test_unknown_payloads() -> None:
    assert codec.payload_kind(b"") == codec.payload_kind(b"\xff") == codec.UNKNOWN
