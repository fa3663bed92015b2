"""CRC-64/XZ (reflected ECMA-182), the plain way: the reference for the digests in a consolidated file."""
import numpy as np

_POLY = 0xC96C5795D7870F42   # 0x42F0E1EBA9EA3693 reflected


def _table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLY if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()


def crc64(data):
    crc, table = 0xFFFFFFFFFFFFFFFF, _TABLE
    for byte in np.frombuffer(data, np.uint8).tolist():
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFFFFFFFFFF


assert crc64(b"123456789") == 0x995DC9BBDF1939FA
