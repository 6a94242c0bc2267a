"""`python -m bench.copy_loop SOURCE_PORT TARGET_PORT`: the least that copies keys: SCAN, PTTL and DUMP, RESTORE, in
pipelines of a page. Bounds no memory, checks nothing, knows one db and no big keys: the practical limit for a copy in
Python that does."""

import socket
import sys

import hiredis
from hiredis import pack_command

PAGE = 1000
READ_BYTES = 128 * 1024


class Connection:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def pipeline(self, commands: list) -> list:
        self._socket.sendall(b"".join(map(pack_command, commands)))
        replies: list = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(READ_BYTES))
            else:
                replies.append(reply)
        return replies


def main() -> None:
    source, target = (Connection(int(port)) for port in sys.argv[1:3])
    cursor = b"0"
    while True:
        ((cursor, keys),) = source.pipeline([(b"SCAN", cursor, b"COUNT", PAGE)])
        replies = source.pipeline([command for key in keys for command in ((b"PTTL", key), (b"DUMP", key))])
        restores = zip(keys, replies[::2], replies[1::2], strict=True)
        target.pipeline([(b"RESTORE", key, max(ttl, 0), payload, b"REPLACE") for key, ttl, payload in restores])
        if cursor == b"0":
            return


if __name__ == "__main__":
    main()
