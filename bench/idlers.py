"""`python -m bench.idlers PORT COUNT`: so many clients that say PING once, then nothing, until standard input ends.

A process of its own, as select() (bench/latency.py) takes no descriptor above 1,023.
"""

import socket
import sys


def main(port: int, count: int) -> None:
    clients = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), 10)
        client.sendall(b"PING\r\n")
        if client.recv(64) != b"+PONG\r\n":
            sys.exit("turned away: `ulimit -n` has to be 20,000")
        clients.append(client)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
