"""Unpacking what rotation has packed, known by its first bytes, as far as the standard library can."""

import bz2
import gzip
import io
import lzma
import sys
import zlib
from importlib import import_module
from typing import BinaryIO

LONGEST_MAGIC = 6
ZSTD = b"\x28\xb5\x2f\xfd"
FOREIGN = {
    ZSTD: "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
}
SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".lzma", ".zst", ".lz4", ".Z", ".zip", ".7z"})
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)

Unpacked = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile | io.BufferedIOBase


class ForeignPackingError(Exception):
    """Nothing in the standard library unpacks it; the message says what it is packed with."""


def unpacked(file: BinaryIO, begin: bytes) -> Unpacked | None:
    """Return a stream of what the file holds unpacked, or None where it is not packed.

    Args:
        file: to be read from its beginning.
        begin: its first LONGEST_MAGIC bytes.

    Raises:
        ForeignPackingError: it is packed, but not so that we can read it.

    """
    if begin.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if begin.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if begin.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lzma.LZMAFile(file)
    if begin.startswith(ZSTD) and sys.version_info >= (3, 14):
        stream: io.BufferedIOBase = import_module("compression.zstd").ZstdFile(file)
        return stream
    for magic, name in FOREIGN.items():
        if begin.startswith(magic):
            raise ForeignPackingError(f"packed with {name}; unpack it first")
    return None
