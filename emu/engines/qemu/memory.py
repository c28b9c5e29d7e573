"""The memory of a stopped QEMU, by `pmemsave`."""

import os
from collections.abc import Sequence
from typing import Final

from pvhboot.shim.errors import BootError, NoMemoryError
from pvhboot.shim.machines import Span

from .qmp import Qmp, QmpGone

_CHUNK: Final = 1 << 16  # bytes, fetched at once and kept: tables are read an entry at a time


class QemuMemory:
    """Reads physical memory within the spans that hold any, and across those that adjoin; `forget` when the guest goes on."""

    def __init__(self, qmp: Qmp, spans: Sequence[Span], directory: str) -> None:
        self._qmp = qmp
        self._spans: list[Span] = []
        for span in sorted(spans, key=lambda span: span.bounds):
            if self._spans and self._spans[-1].end == span.start:
                span = span._replace(start=self._spans.pop().start)
            self._spans.append(span)
        self._file = os.path.join(directory, "memory")
        self._chunks: dict[int, bytes] = {}

    def read(self, paddr: int, size: int) -> bytes:
        """`size` bytes at a physical address; NoMemoryError where there is none, BootError if QEMU has ended."""
        span = next((span for span in self._spans if span.start <= paddr and paddr + size <= span.end), None)
        if span is None:
            raise NoMemoryError(f"no memory at {paddr:#x}-{paddr + size:#x}")
        start = max(paddr - paddr % _CHUNK, span.start)
        end = min(paddr - paddr % _CHUNK + _CHUNK, span.end)
        if paddr + size > end:
            return self._fetch(paddr, size)
        if start not in self._chunks:
            self._chunks[start] = self._fetch(start, end - start)
        return self._chunks[start][paddr - start : paddr - start + size]

    def forget(self) -> None:
        """What was read is out of date."""
        self._chunks.clear()

    def _fetch(self, paddr: int, size: int) -> bytes:
        try:
            self._qmp.command("pmemsave", val=paddr, size=size, filename=self._file)
        except QmpGone:
            raise BootError(f"QEMU has ended: its memory at {paddr:#x} cannot be read any more") from None
        with open(self._file, "rb") as file:
            return file.read()
