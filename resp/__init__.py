"""The wire protocol, without I/O: nothing here knows a socket, a clock or an event loop.

The walk, in the order of one command:

    commands.py  client bytes -> commands (list[bytes]); inline.py has the quoting of typed ones,
                 pipelines.py the way through hiredis for many at once, bulks.py the tables of small sizes
    catalog.py   command -> Spec: how it may travel, which keys it names; table.py is the data, keys.py the extraction
    slots.py     key -> cluster slot
    encode.py    command -> bytes for a server; the proxy's own replies -> bytes for a client
    frames.py    server bytes -> reply frames, untouched; elements of a frame; a frame's value
    errors.py    ProtocolError: bytes that are not the protocol

A command is a list of byte strings, argv[0] being the name as the client wrote it. A frame is the raw bytes of one
complete reply, CRLF included. A server's -ERR is a frame like any other.
"""
