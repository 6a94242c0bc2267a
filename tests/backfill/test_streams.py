"""How a stream is rebuilt: the order of commands, placeholders for deleted entries, counters, batches."""

from __future__ import annotations

from backfill import streams
from backfill.values import Group, Pending, Stream

RAISED = b"XSETID s %b ENTRIESADDED 9223372036854775807 MAXDELETEDID 0-0"  # Redis 8.2 takes no more for ENTRIESREAD


def written(stream: Stream, *, shift_ms: int = 0, counters: bool = True) -> list[bytes]:
    return [b" ".join(words) for words in streams.write(b"s", stream, shift_ms=shift_ms, counters=counters)]


def test_a_deleted_entry_stays_pending_through_a_placeholder() -> None:
    pending = (Pending(b"9-1", b"anna", 100, 2), Pending(b"10-1", b"anna", 100, 2), Pending(b"11-0", b"bert", 7, 1))
    group = Group(b"g", b"10-1", 3, (b"anna", b"bert"), pending)
    stream = Stream({b"9-1": (b"f", b"v"), b"11-0": (b"f", b"w")}, b"12-0", 5, b"10-1", (group,))
    assert written(stream, shift_ms=-10) == [
        b"XADD s 9-1 f v",
        b"XADD s 10-1  ",
        b"XADD s 11-0 f w",
        RAISED % b"12-0",
        b"XGROUP CREATE s g 10-1 MKSTREAM ENTRIESREAD 3",
        b"XGROUP CREATECONSUMER s g anna",
        b"XGROUP CREATECONSUMER s g bert",
        b"XCLAIM s g anna 0 9-1 10-1 TIME 90 RETRYCOUNT 2 FORCE JUSTID",
        b"XCLAIM s g bert 0 11-0 TIME 0 RETRYCOUNT 1 FORCE JUSTID",
        b"XDEL s 10-1",
        b"XSETID s 12-0 ENTRIESADDED 5 MAXDELETEDID 10-1",
    ]


def test_a_target_without_counters() -> None:
    stream = Stream({b"1-0": (b"f", b"v")}, b"3-0", 3, b"3-0", (Group(b"g", b"0-0", 1, (), ()),))
    assert written(stream, counters=False) == [
        b"XADD s 1-0 f v",
        b"XGROUP CREATE s g 0-0 MKSTREAM",
        b"XSETID s 3-0",
    ]


def test_a_source_without_counters() -> None:
    """As a server of 7.0 loads such a stream."""
    stream = Stream({b"1-0": (b"f", b"v")}, b"3-0", groups=(Group(b"g", b"1-0", None, (), ()),))
    assert written(stream)[1:] == [
        b"XGROUP CREATE s g 1-0 MKSTREAM",
        b"XSETID s 3-0 ENTRIESADDED 1 MAXDELETEDID 0-0",
    ]


def test_empty_streams() -> None:
    made = [b"XGROUP CREATE s crossfade 0-0 MKSTREAM", b"XGROUP DESTROY s crossfade"]
    assert written(Stream({}, b"0-0", 0, b"0-0")) == made
    assert written(Stream({}, b"7-0", 1, b"7-0")) == [*made, b"XSETID s 7-0 ENTRIESADDED 1 MAXDELETEDID 7-0"]
    group = Group(b"g", b"0-0", None, (), ())
    assert written(Stream({}, b"0-0", 0, b"0-0", (group,))) == [*made, b"XGROUP CREATE s g 0-0 MKSTREAM"]


def test_what_was_trimmed_is_trimmed_again() -> None:
    """XDEL would leave a max-deleted-entry-id, where there was none, that no XSETID takes back."""
    pending = tuple(Pending(b"%d-0" % number, b"anna", 7, 1) for number in (1, 2, 4))
    group = Group(b"g", b"4-0", 4, (b"anna",), pending)
    entries = {b"3-0": (b"f", b"v"), b"5-0": (b"f", b"v")}  # of 4-0 a server of 6.2 kept no memory
    assert written(Stream(entries, b"5-0", 5, b"0-0", (group,)))[-3:] == [
        b"XTRIM s MINID = 3-0",
        b"XDEL s 4-0",
        b"XSETID s 5-0 ENTRIESADDED 5 MAXDELETEDID 0-0",
    ]
    assert written(Stream({}, b"5-0", 5, b"0-0", (group,)))[-2:] == [
        b"XTRIM s MAXLEN = 0",
        b"XSETID s 5-0 ENTRIESADDED 5 MAXDELETEDID 0-0",
    ]
    assert written(Stream(entries, b"5-0", 5, None, (group,)), counters=False)[-2:] == [
        b"XDEL s 1-0 2-0 4-0",
        b"XSETID s 5-0",
    ]


def test_many_pending_entries_go_in_batches() -> None:
    entries = {b"%d-0" % index: (b"f", b"v") for index in range(1, 1201)}
    group = Group(b"g", b"1200-0", 1200, (b"c",), tuple(Pending(identity, b"c", 5, 1) for identity in entries))
    claims = [
        words[5:-6]
        for words in streams.write(b"s", Stream(entries, b"1200-0", 1200, b"0-0", (group,)), shift_ms=0, counters=True)
        if words[0] == b"XCLAIM"
    ]
    assert list(map(len, claims)) == [500, 500, 200]
    assert [identity for batch in claims for identity in batch] == list(entries)


def test_ids_are_ordered_as_numbers() -> None:
    assert sorted([b"10-0", b"9-10", b"9-9"], key=streams.id_order) == [b"9-9", b"9-10", b"10-0"]
