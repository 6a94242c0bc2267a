"""The ferry: a process of its own that copies small keys straight from server to server, beside the lane.

A copy through the lane costs the proxy, which is one thread and has clients to serve, some 10 us a key. The ferry costs
it next to nothing: it scans the serving side itself, and copies the keys in *crossings* of up to a thousand.

What it writes has no place in the order. So it opens a crossing before it reads the first key, and closes it when the
mirror side has acknowledged the last; then the proxy judges (`crossings.py`). A key that nobody has written, and nobody
has copied, from before the crossing was opened until it was closed, is equal on both sides: all earlier writes had been
acknowledged when it was read, all later ones are sent after it was written. Every other key is marked, and copied again
in the lane, behind all that the ferry has done to it. That is DESIGN's "one idea" with another bound: not a point in
the order, but a time in which there was none.

The keys of an open crossing are on disk, as written keys are (invariant 3). A ferry that is lost is fenced, and then
all keys of its open crossings are marked (invariant 13). Whatever is not simple is left to the lane: large keys, what
is refused, what is not there any more.

`crossings.py` (pure) judges; `ferrying.py` is the proxy's side; `__main__.py` is the process, `walk.py` what it does.
"""
