"""What is awaited on the lane and on the mirror connection: one item per reply frame, in order.

Items are plain tuples whose first element is one of these kinds: they are made and taken apart for every command, and a
tuple is made in a fifth of the time of a slotted object (timeit, CPython 3.11). The field lists stand here and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resp.catalog import Spec

Keys = bytes | tuple[bytes, ...]  # of a command: its one key, or all of them

# -- on the lane --
READ = 0  # (READ, session, payload, db)                  answer goes to the session; may be sent again after a loss
FORWARD = 1  # (FORWARD, session)                         answer goes to the session; part of a block
WRITE = 2  # (WRITE, session, payload, spec, args, db, sent)   answer goes to the session, its effect to the mirror
SWALLOW = 3  # (SWALLOW, what)                            our own SELECT, HELLO, MULTI: must not be an error
SKIP = 4  # (SKIP,)                                       answer of no interest (QUEUED and its errors: EXEC tells)
EXEC = 5  # (EXEC, session, block, db, sent)              the end of a client's MULTI block
CALL = 6  # (CALL, callback)                              callback(frame), or callback(None) when the link was lost
SELECTED = 7  # (SELECTED, session, db, awaited)          answer of a client's SELECT; is he in the db only with it?
READS = 12  # (READS, session, payload, db, awaited)      a pipeline of reads: so many answers for the session
WRITES = 13  # (WRITES, session, run, db, sent)           a pipeline of writes of one shape
SINGLE = 16  # (SINGLE, session, payload, spec, args, db, sent, key, answers)
#                                                         a WRITE of one key that is mirrored as sent, if at all:
#                                                         see `Answers`

# -- on the mirror connection (SWALLOW, SKIP, CALL as above) --
GUARD = 9  # (GUARD,)                                     PTTL asked before the EFFECT that follows
EFFECT = 10  # (EFFECT, seq, size, db, effect, replied, block)  `block`: the frame is an EXEC reply
COPY = 11  # (COPY, seq, size, place, form, count)        the last reply of a state copy; count > 1: an EXEC reply
COPIES = 15  # (COPIES, seq, size, places, got)           copies of small keys, one reply each; `got` so far
BATCH = 14  # (BATCH, batch)                             effects as sent, answered together


class Run:
    """A pipeline of writes of one shape, sent on as it came. `columns`: names, keys, second arguments ..."""

    __slots__ = ("awaited", "columns", "frames", "payload", "spec")

    def __init__(self, payload: bytes, spec: Spec, columns: list[list[bytes]]) -> None:
        self.payload = payload
        self.spec = spec
        self.columns = columns
        self.awaited = len(columns[0])  # answers of the serving side still to come
        self.frames: list[bytes] = []  # its answers

    def __repr__(self) -> str:
        return f"<Run of {len(self)} {self.spec.name!r} awaited={self.awaited}>"

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def keys(self) -> Sequence[Keys]:
        """Of each command."""
        if self.spec.one_key:
            return self.columns[1]
        return list(zip(*self.columns[self.spec.key_columns], strict=True))

    def commands(self) -> list[list[bytes]]:
        """One by one."""
        return list(map(list, zip(*self.columns, strict=True)))


class Batch:
    """Effects on the mirror connection that are the clients' commands as sent, one right behind the other, and the
    expiry guards in front of them: a PTTL is one more command, without a spec, that should be answered IMMORTAL. So one
    comparison of two lists settles them all. It may grow until it is sent, while it is the last item there is."""

    __slots__ = ("db", "effects", "expected", "got", "keys", "replied", "seq", "size", "specs")

    def __init__(self, seq: int, db: int, replied: float) -> None:
        self.seq = seq
        self.db = db
        self.replied = replied  # when the serving side answered the first
        self.size = 0  # bytes counted
        self.effects = 0
        self.specs: list[Spec | None] = []
        self.keys: list[Keys] = []  # of each command
        self.expected: list[bytes] = []
        self.got: list[bytes] = []

    def __repr__(self) -> str:
        return f"<Batch of {len(self.keys)} seq={self.seq} answered={len(self.got)}>"


def each(keys: Keys) -> Iterable[bytes]:
    """One by one."""
    return (keys,) if isinstance(keys, bytes) else keys
