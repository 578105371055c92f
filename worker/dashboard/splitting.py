"""Dividing the bytes of a log into lines. Memory holds one chunk, whatever the length of file and line."""

import codecs
from typing import Final

from worker.dashboard.log_state import Clock, LogState

CHUNK: Final = 256 * 1024  # bytes, about five milliseconds of work
LONGEST_LINE: Final = 1024 * 1024
SAMPLE: Final = 200
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class LineSplitter:
    """Divides the bytes of one file into lines and folds them in; `clock` is that of the file's writer."""

    def __init__(self, state: LogState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._rest = b""
        self._skipping = False  # within a line that is too long to be one of ours
        self._begin: bytes | None = b""  # until two bytes are there
        self._utf_16: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes. What follows the last newline is kept until its rest comes."""
        if self._begin is not None:
            data = self._begun(data)
        if self._utf_16 is not None:
            data = self._utf_16.decode(data).encode("utf-8", "surrogatepass")
        self._take(data)

    def _begun(self, data: bytes) -> bytes:
        """Look for the mark of UTF-16, as PowerShell writes it; that of UTF-8 stands in the first line."""
        data = (self._begin or b"") + data
        if len(data) == 1 and data in {mark[:1] for mark in UTF_16}:
            self._begin = data
            return b""
        self._begin = None
        if data.startswith(UTF_16):
            self._utf_16 = codecs.getincrementaldecoder("utf-16")("replace")
        return data

    def _take(self, data: bytes) -> None:
        end = data.rfind(b"\n")
        if end < 0:
            self._keep(data)
            return
        whole, after = data[:end], data[end + 1 :]
        if self._skipping:
            _, found, whole = whole.partition(b"\n")
            self._skipping = False
            if not found:
                whole = b""
        else:
            whole = self._rest + whole
        self._rest = b""
        self._fold(whole)
        self._keep(after)

    def end(self) -> None:
        if not self._skipping:
            self._fold(self._rest + (self._begin or b""))
        self.forget()

    def forget(self) -> None:
        self._rest, self._skipping = b"", False
        self._begin, self._utf_16 = b"", None

    def _keep(self, data: bytes) -> None:
        if self._skipping:
            return
        self._rest += data
        if len(self._rest) > LONGEST_LINE:
            self._state.broken(self._rest[:SAMPLE].decode("utf-8", "replace"))
            self._rest, self._skipping = b"", True

    def _fold(self, data: bytes) -> None:
        if not data:
            return
        texts = data.decode("utf-8", "surrogateescape").split("\n")
        if len(data) > LONGEST_LINE:  # then its first line, made of several chunks, may be too long
            texts = self._without_long_ones(texts)
        self._state.fold(texts, self._clock)

    def _without_long_ones(self, texts: list[str]) -> list[str]:
        for text in texts:
            if len(text) > LONGEST_LINE:
                self._state.broken(text)
        return [text for text in texts if len(text) <= LONGEST_LINE]
