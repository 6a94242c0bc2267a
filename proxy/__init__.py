"""The proxy: sessions, the lane, effects, the mirror queue, repair, flip, and the admin socket.

The natural way through the house is the way of one command:

    session.py   bytes of a client -> commands
    router.py    command -> where it goes (lane, pinned connection, the proxy itself)
    lane.py      the shared connection to the serving side; its reply order is the order of execution
    effects/     what a write did, as deterministic commands (pure)
    mirror.py    effects in lane order, down one connection to the mirror side
    judging.py   replies compared with those of the serving side (pure)
    dirty.py     keys whose mirror copy may differ, one small state machine a key (pure)
    repair.py    reads dirty keys in the lane, queues the copies on the mirror

`floor.py` drives all of it synchronously from one trio task (the fast floor); `server.py` is the slow floor:
listeners, connections, backfill, verify, flip and the admin socket.
"""
