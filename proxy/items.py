"""What is awaited on the lane and on the mirror connection: one item per reply frame, in order.

Items are plain tuples whose first element is one of these kinds: they are made and taken apart for every command, and a
tuple is made in a fifth of the time of a slotted object (timeit, CPython 3.11). The field lists stand here and nowhere
else.
"""

from __future__ import annotations

# -- on the lane --
READ = 0  # (READ, session, payload, db)                  answer goes to the session; may be sent again after a loss
FORWARD = 1  # (FORWARD, session)                         answer goes to the session; part of a block
WRITE = 2  # (WRITE, session, payload, spec, args, db, sent)   answer goes to the session, its effect to the mirror
SWALLOW = 3  # (SWALLOW, what)                            our own SELECT, HELLO, MULTI: must not be an error
SKIP = 4  # (SKIP,)                                       answer of no interest (QUEUED and its errors: EXEC tells)
EXEC = 5  # (EXEC, session, block, db, sent)              the end of a client's MULTI block
CALL = 6  # (CALL, callback)                              callback(frame), or callback(None) when the link was lost
SELECTED = 7  # (SELECTED, session, db)                   answer of a client's SELECT

# -- on the mirror connection (SWALLOW, SKIP, CALL as above) --
AS_SENT = 8  # (AS_SENT, seq, size, db, spec, args, expected, replied)
GUARD = 9  # (GUARD,)                                     PTTL asked before the effect that follows
EFFECT = 10  # (EFFECT, seq, size, db, effect, replied, block)  `block`: the frame is an EXEC reply
COPY = 11  # (COPY, seq, size, place, form, count)        the last reply of a state copy; count > 1: an EXEC reply
