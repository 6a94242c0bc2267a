"""Load that tries to break a migration: many clients on few hot keys, seeded, checking what they can.

`Traffic` runs the clients, `preload` fills a server beforehand. Independent of the code under test:
hiredis and sockets only.
"""

from tests.traffic.ledger import Statistics
from tests.traffic.preload import preload
from tests.traffic.traffic import Traffic

__all__ = ["Statistics", "Traffic", "preload"]
