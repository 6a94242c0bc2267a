"""Copying keys between two servers: addresses, connections, the state codec, comparison and scanning.

Doors (they do I/O and decide nothing): `dial`, `tls`, `client`, `scan`. Rooms (pure): `url`, `codec`, `values`,
`streams`, `compare`. Knows the wire protocol (`resp`), never the proxy.
"""
