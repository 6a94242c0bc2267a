"""More than one core: `crossfade proxy --workers N`.

Words: the *owner* is the process that has listener, lane, order, journal and mirror: all that the rest of `proxy` is
about. A *front* is a process of its own that talks to clients. The owner accepts each connection and hands the socket
to the front with the fewest clients (one that hangs comes last), over the *channel* between the two: so the load is
spread evenly, ids are the owner's, a front that dies takes no connection along that it had not been given, and without
any front the owner serves. A client that does plain things is a *guest*: its commands go, with those of all the front's
guests, down one pipelined connection to the owner, the *trunk* (a lane whose upstream is the owner). The first command
of any other kind makes the front *relay*: from then on the client has a connection of its own to the owner, which knows
everything.

In the owner: `fronts.py`, `guests.py`. In a front: `__main__.py`, `hub.py`, `router.py`, `trunk.py`, `relay.py`. In
both: `channel.py`. All of them live on the fast floor.
"""
