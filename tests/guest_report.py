"""What a conformance guest has printed, taken apart."""

import re
from typing import NamedTuple


class LoadLine(NamedTuple):
    """A PT_LOAD as the guest found it; `hash` is None for the one that is its own image."""

    paddr: int
    filesz: int
    memsz: int
    hash: int | None
    zeros: int


class GuestReport(NamedTuple):
    format: int
    bits: int
    name: str
    base: int
    displacement: int
    image_sum: int
    loads: list[LoadLine]
    registers: dict[str, int]
    memmap: list[tuple[int, int, int]]
    modules: list[tuple[int, int, str]]
    checks: dict[str, bool]
    freebsd: list[str]
    result: str

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [name for name, ok in self.checks.items() if not ok]


def parse_report(console: bytes | str) -> GuestReport:
    """The report of a guest that has come to its result."""
    text = console if isinstance(console, str) else console.decode()
    text = text.replace("\r", "")
    (head,) = re.findall(r"^pvhguest (\d+) elf(\d+) (\S+)$", text, re.MULTILINE)
    (image,) = re.findall(r"^image base=(\w+) displacement=(\w+) sum=(\w+)$", text, re.MULTILINE)
    loads = re.findall(r"^load (\d+) paddr=(\w+) filesz=(\w+) memsz=(\w+)(?: hash=(\w+))? zeros=(\w+)$", text, re.MULTILINE)
    assert [int(load[0]) for load in loads] == list(range(len(loads)))
    checks = re.findall(r"^check (\w+) (ok|FAIL)$", text, re.MULTILINE)
    (result,) = re.findall(r"^result (.*)$", text, re.MULTILINE)
    return GuestReport(
        int(head[0]),
        int(head[1]),
        head[2],
        *(int(value, 16) for value in image),
        [
            LoadLine(int(paddr, 16), int(filesz, 16), int(memsz, 16), int(found, 16) if found else None, int(zeros, 16))
            for _, paddr, filesz, memsz, found, zeros in loads
        ],
        {
            name: int(value, 16)
            for line in re.findall(r"^(?:reg|seg) (.*)$", text, re.MULTILINE)
            for name, value in (pair.split("=") for pair in line.split())
        },
        [(int(a, 16), int(s, 16), int(t)) for a, s, t in re.findall(r"memmap \d+ addr=(\w+) size=(\w+) type=(\d+)", text)],
        [
            (int(paddr, 16), int(size, 16), line)
            for paddr, size, line in re.findall(r"module \d+ paddr=(\w+) size=(\w+) sum=\w+ cmdline=(.*)$", text, re.MULTILINE)
        ],
        {name: word == "ok" for name, word in checks},
        re.findall(r"^freebsd (.*)$", text, re.MULTILINE),
        result,
    )
