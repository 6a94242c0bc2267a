"""Big keys: copied in pages, exactly, while they are written to.

A key above BIG_BYTES is not read with one DUMP: a reply of 100 MB on the lane would hold up every client for as long as
the server takes to write it. It is read in pages of about PAGE_BYTES. This file is the model; the rooms beside it are

    sizing.py     is a key big? asked before it is read
    pages.py      the words: Pager, Broken; what every type has in common
    members.py    hashes, sets, sorted sets: paged by HSCAN, SSCAN, ZSCAN
    lists.py      paged by index
    texts.py      strings, paged by offset
    streams.py    paged by id, the groups at the end
    copying.py    the copies under way: who is asked when, what becomes of an effect on such a key

All but `copying.py` are pure, and that knows no clock.

**The model.** A copy under way is a sequence of pages P0, P1 … Pn. Each page is a read in the lane, so it shows what it
shows at one point of the order; what it showed is put in the mirror queue at that very point. P0 puts a DEL in front.
From P0's point to Pn's point, *everything* that is put in the mirror queue for this key is a **statement**: a command
that makes elements of the mirror's copy what they are at the serving side at that point, whatever the mirror's copy
held before. HSET, HDEL, SADD, SREM, ZADD and ZREM of named elements are statements. So

1. an element is right on the mirror side from the first statement about it on, as every later change of it is stated;
2. an element without any statement is absent there (the DEL), and at Pn's point also absent on the serving side: had it
   been there all the time, a SCAN would have returned it (its promise), had it come or gone, a write would have told.

Hence at Pn's point both sides are equal, and effects go on as for any key. A statement's reply depends on what happens
to be copied already, so it is not compared; an *error* is a failure of the copy. The copy ends with the sizes and the
deadlines of both sides compared at one point, which finds what the model does not know (the mirror evicted something,
the key expired on one side only, somebody wrote behind the proxy).

**Effects that are no statements** while the copy is incomplete:

* The effect builds on the old value of an element (HINCRBY, ZINCRBY, ZADD GT, HPEXPIREAT, BITFIELD): it is *not*
  mirrored. The elements it names are asked for by name with the next page (HMGET, SMISMEMBER, ZMSCORE, GETRANGE): a
  statement. Once the scan is through, an element that is not waiting to be asked for is exact, and its effects go as
  they are: so the waiting ones become fewer under any load, and the copy ends.
* It works by rank or by value (ZREMRANGEBYRANK, ZREMRANGEBYLEX, LREM, LINSERT): which elements it touches is asked for
  in the lane right before it (inside a client's MULTI block too; the client does not get that reply), and it is stated
  of these. With more than MAX_NAMED of them, with XSETID, or if nobody knows what a command does: the copy is broken
  off and begins again. After MAX_BREAKS of these the key is copied whole if it is not above WHOLE_BYTES; else it waits
  longer and longer between two tries, and status names it with the command.
* It replaces or deletes the whole key (DEL, SET, RESTORE): mirrored as it is; the copy is broken off, what is there now
  is read anew.
* SMOVE, LMOVE, RPOPLPUSH have two keys: they are taken apart, each half treated by its own key.
* A script, RENAME, a *STORE command: a state copy of the key, as ever: the copy under way goes on, and the key is
  copied once more. As are writes on pinned connections. Where they never cease, it rests between two copies, and is
  equal after the one within the pause of a flip.

**Positions.** A list's elements have no names. The mirror's copy is always a *prefix* of the serving side's list, and
as every reply tells how long the list is now, it is known in lane order how many elements are copied: what happens at
the head is mirrored, what happens behind the prefix is not (a later page shows it). A string's bytes are named by
their offset: APPEND and SETRANGE behind the copied prefix are left to the page that comes. A stream's copy is a prefix
by id: new entries are left to later pages, deletions wait for the end (an entry may be pending although it is deleted,
and can only be made pending while it is there), groups are read and made at the end, at one point.

**Deadlines.** Every page has the deadline in its read, and sets it (or PERSIST) behind its statements. PEXPIREAT and
PERSIST are statements. A page whose clock is not before the earliest deadline seen since the page before shows another
key of the same name: begin again.
"""

from proxy.bigkeys.copying import Copies
from proxy.bigkeys.pages import BIG_BYTES, PAGE_BYTES

__all__ = ["BIG_BYTES", "PAGE_BYTES", "Copies"]
