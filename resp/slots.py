"""Key to cluster slot.

Owns: the hash slot of a key, as the cluster specification defines it. Refuses to know: which node has which slot.
"""

from __future__ import annotations

from binascii import crc_hqx

SLOTS = 16384


def key_slot(key: bytes) -> int:
    """The slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key when it has no tag or an empty one."""
    opening = key.find(b"{")
    if opening >= 0:
        closing = key.find(b"}", opening + 1)
        if closing > opening + 1:
            key = key[opening + 1 : closing]
    return crc_hqx(key, 0) % SLOTS
