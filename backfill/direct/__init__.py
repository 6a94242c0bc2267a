"""Copying and comparing straight from server to server, without a proxy: `replicate` and `compare`.

Rooms (pure): `bulk`, `groups`, `patterns`, `selection`, `tally`. Doors: the others; `pipe` has the connection.
The walk: `walking` scans -> `copier` reads, writes and settles groups of keys, `pages` big ones -> `tally` counts and
knows how far it came -> `checkpoint` keeps that. `feed` and `live` add what changes meanwhile; `replicate` runs it all.
"""
