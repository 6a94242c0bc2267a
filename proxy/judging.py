"""What the mirror side's answers mean: each is compared with the one that the serving side gave. Pure.

Owns when an effect is settled (invariant 4): everything else is told, with the reason. Which answer belongs to which
effect is the queue's business (mirror.py).

The expiry guard's rule is here: an effect that builds on a key's prior state is preceded by a PTTL of that key. If the
key is missing there, or within clock uncertainty and lag of its deadline, the two sides may have built on different
states whatever the reply says, and the key is dirty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from proxy.effects.compare import same_reply
from proxy.items import Batch, Keys, each
from resp.frames import elements

if TYPE_CHECKING:
    from proxy.roles import Roles

Differs = Callable[[int, Iterable[bytes], int, str], None]  # db, keys, position in the queue, reason

MISUNDERSTOOD = ("ERR unknown ", "ERR syntax error", "ERR wrong number of arguments", "nsupported ")
MAX_MISUNDERSTOOD = 100  # different ones that are counted

DEADLINE_SLACK_MS = 50.0  # a deadline counted from a reply is late by at most the command's time in flight
NEAR_EXPIRY = "may have expired on one side first"
IMMORTAL = b":-1\r\n"  # what PTTL says of a key without a deadline
_ERROR = ord("-")
_INTEGER = ord(":")


class Judge:
    """Of one mirror queue. `differs` is told of keys whose effect cannot be trusted, `whole_db` of such a barrier."""

    def __init__(
        self, roles: Roles, clock: Callable[[], float], differs: Differs, whole_db: Callable[[str], None]
    ) -> None:
        self.settled = 0  # effects acknowledged as expected
        self.differed = 0  # effects that were answered otherwise
        self.misunderstood: Counter[str] = Counter()  # effects that the mirror side has no words for, by its error
        self.refused = b""  # the last error of a transaction's commands: EXEC's own says nothing
        self._roles = roles
        self._clock = clock
        self._differs = differs
        self._whole_db = whole_db
        self._pttls: list[int] = []  # of keys of the next effect that will expire, or are missing

    def __repr__(self) -> str:
        return f"<Judge settled={self.settled} differed={self.differed}>"

    def forget(self) -> None:
        """The connection is another one."""
        self._pttls.clear()

    def guard(self, frame: bytes) -> None:
        """The answer to the PTTL in front of a computed effect."""
        if frame != IMMORTAL:
            self._pttls.append(_pttl(frame))

    def batch(self, batch: Batch) -> None:
        """All of its answers are there, and not all are as expected."""
        near: set[Keys] = set()
        for spec, keys, expected, frame in zip(batch.specs, batch.keys, batch.expected, batch.got, strict=True):
            if spec is None:
                if frame != IMMORTAL and self._is_near(_pttl(frame), batch.replied):
                    near.add(keys)
            elif not self._same(expected, frame):
                self._differ(batch.db, each(keys), batch.seq, self._why(expected, frame, spec.name))
            elif keys in near:
                self._differ(batch.db, each(keys), batch.seq, NEAR_EXPIRY)
            else:
                self.settled += 1

    def effect(self, item: tuple[Any, ...], frame: bytes) -> None:
        """The answer to an EFFECT of items.py."""
        _, seq, _, db, effect, replied, block = item
        replies = elements(frame) if block and frame[0] != _ERROR else [frame]
        reason = ""
        refused, self.refused = self.refused, b""
        if len(replies) != len(effect.commands):
            reason = self._why(b"", refused or frame, b"EXEC")
        else:
            for command, expected, got in zip(effect.commands, effect.expected, replies, strict=True):
                if not self._same(expected, got):
                    reason = self._why(expected or b"", got, command[0])
                    break
        if reason and effect.barrier is not None:
            self._whole_db(reason)
        if reason:
            self._differ(db, effect.keys, seq, reason)
        elif any(self._is_near(pttl, replied) for pttl in self._pttls):
            self._differ(db, effect.keys, seq, NEAR_EXPIRY)
        else:
            self.settled += 1
        self._pttls.clear()

    def copy(self, frame: bytes, count: int) -> bytes | None:
        """The answer to a state copy of so many commands: what is wrong with it, or nothing."""
        replies = elements(frame) if count > 1 and frame[0] != _ERROR else [frame]
        error = next((reply for reply in replies if reply[0] == _ERROR), None)
        refused, self.refused = self.refused, b""
        if error is not None and error.startswith(b"-EXECABORT"):
            error = refused or error
        if error is None and len(replies) != count:
            error = b"-ERR the rebuilding transaction was not executed\r\n"
        return error

    @staticmethod
    def _same(expected: bytes | None, got: bytes) -> bool:
        if expected is None:
            return got[0] != _ERROR
        return expected == got or same_reply(expected, got)

    def _is_near(self, pttl: int, replied: float) -> bool:
        """The expiry guard's rule: whether a key may have been alive on one side only."""
        age_ms = (self._clock() - replied) * 1000
        return pttl == -2 or 0 <= pttl <= self._roles.uncertainty_ms + DEADLINE_SLACK_MS + age_ms

    @staticmethod
    def _why(expected: bytes, got: bytes, name: bytes) -> str:
        command = name.decode(errors="replace")
        if got[0] == _ERROR:
            return f"{command} failed on the mirror: {got[1:-2].decode(errors='replace')[:120]}"
        return f"{command} was answered differently"

    def _differ(self, db: int, keys: Iterable[bytes], seq: int, reason: str) -> None:
        self.differed += 1
        self._note_misunderstood(reason)
        self._differs(db, keys, seq, reason)

    def _note_misunderstood(self, reason: str) -> None:
        """A refusal that shows that the mirror side does not know the command, or the option."""
        if any(words in reason for words in MISUNDERSTOOD):
            text = reason.partition(", with args")[0]
            if text in self.misunderstood or len(self.misunderstood) < MAX_MISUNDERSTOOD:
                self.misunderstood[text] += 1


def _pttl(frame: bytes) -> int:
    """Milliseconds; -1 without a deadline, -2 without a key or an answer."""
    return int(frame[1:-2]) if frame[0] == _INTEGER else -2
