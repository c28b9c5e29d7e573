"""QEMU's trace of the accesses to its devices.

Source: QEMU docs/devel/tracing.rst (the events and the log backend, which writes to the log file), softmmu/trace-events
(memory_region_ops_*: what is printed), softmmu/memory.c (an access is told in the pieces that the device takes, its value as
the device sees it).
"""

import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import IO_PORTS
from pvhboot.shim.errors import BootError

from ...bus import IN, LOG_LIMIT, OUT, READ, WRITE, Access
from ..names import KVM
from .process import QemuProcess
from .qtest import Qtest
from .recorder import read_items

EVENTS: Final = ("memory_region_ops_read", "memory_region_ops_write")
_LINE: Final = re.compile(
    r"(?:\d+@[\d.]+:)?memory_region_ops_(read|write) cpu (-?\d+) mr 0x[0-9a-f]+ addr 0x([0-9a-f]+) value 0x([0-9a-f]+) "
    r"size (\d+) name '(.*)'\n?"
)
_CONNECT_TIMEOUT: Final = 10.0  # seconds
_NOBODY: Final = "-1"  # the CPU of an access that is none of the guest's
_BIG_ENDIAN: Final = "fwcfg.dma"  # hw/nvram/fw_cfg.c, fw_cfg_dma_mem_ops: the only such region of these machines


class Trace(NamedTuple):
    """The CPU's accesses to devices up to the handoff, and what fw_cfg holds then but kernel and initrd, by key; no items where
    none of them goes by DMA, which the accesses do not show."""

    accesses: tuple[Access, ...]
    items: Mapping[int, bytes]


class QtestListener:
    """Where a QEMU that is about to start is to connect to, with `arguments` on its command line."""

    def __init__(self, listening: socket.socket, path: str) -> None:
        self._listening = listening
        self.arguments = ("-qtest", f"unix:{path}", "-qtest-log", os.devnull)

    def read_items(self, process: QemuProcess) -> dict[int, bytes]:
        """What the fw_cfg of the QEMU that has connected holds. It must stand still."""
        self._listening.settimeout(_CONNECT_TIMEOUT)
        with self._listening.accept()[0] as connection:
            qtest = Qtest(connection, process.last_words)
            try:
                return read_items(qtest)
            finally:
                qtest.close()


@contextmanager
def qtest_listener() -> Iterator[QtestListener]:
    """A listener on a socket of its own."""
    with tempfile.TemporaryDirectory(prefix="pvhboot-") as directory, socket.socket(socket.AF_UNIX) as listening:
        path = os.path.join(directory, "qtest")
        try:
            listening.bind(path)
        except OSError as error:  # a socket's path has 107 bytes at most
            raise BootError(f"QEMU's socket cannot be made in {directory} (TMPDIR): {error.strerror or error}") from None
        listening.listen(1)
        yield QtestListener(listening, path)


def trace_arguments(accelerator: str) -> list[str]:
    """What has QEMU write its trace. With KVM the interrupt controllers are moved into QEMU: what the kernel's would answer
    nobody could see."""
    line = [word for event in EVENTS for word in ("-trace", event)]
    return line + (["-machine", "kernel-irqchip=off"] if accelerator == KVM else [])


def parse_trace(lines: Iterable[str]) -> list[Access]:
    """The CPU's accesses in a log with other lines between. BootError if there are too many."""
    accesses: list[Access] = []
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None or found[2] == _NOBODY:
            continue
        kind, address, size, device = found[1], int(found[3], 16), int(found[5]), found[6]
        value = int(found[4], 16) & (1 << 8 * size) - 1
        if device == _BIG_ENDIAN:
            value = int.from_bytes(value.to_bytes(size, "big"), "little")
        if address < IO_PORTS:  # memory below that is RAM on each machine
            kind = {READ: IN, WRITE: OUT}[kind]
        accesses.append(Access(kind, address, size, value, device))
        if len(accesses) >= LOG_LIMIT:
            raise BootError(f"the firmware has made {LOG_LIMIT} accesses to devices or more: too many for a transcript")
    return accesses
