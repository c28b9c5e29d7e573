"""What each file of the firmware gets and leaves, by its own header, and how many of its instructions a boot executes."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from pvhboot.emu.engines.base import Limits
from pvhboot.emu.inputs import open_kernel
from pvhboot.emu.recorded import record_boot
from pvhboot.emu.session import get_engine
from pvhboot.loader.plan import make_plan
from pvhboot.loader.sizes import DEFAULT_MEMORY, parse_memory
from pvhboot.shim.image import asm_source
from pvhboot.shim.machines import BARE, MACHINES
from pvhboot.shim.stock import default_blob

from .firmware import going_there
from .markdown import code, table

_CMDLINE: Final = "console=ttyS0"
_PARTS: Final = ("In", "Out", "Clobbers")


def counts_table(_argument: str) -> str:
    """All files that are executed on the way of a PVH kernel, by machine."""
    counts = _counts()
    rows = [(f"[{name}](#{_anchor(name)})", *(_number(counts[machine][name]) for machine in MACHINES)) for name in _order()]
    total = ("all", *(_number(sum(counts[machine].values())) for machine in MACHINES))
    return table(("file", *map(code, MACHINES)), [*rows, total])


def contract(argument: str) -> str:
    """One file."""
    parts = _header(asm_source(argument))
    lines = [f"- File: [shim/asm/{argument}](../shim/asm/{argument})"]
    lines += [f"- {name}: {parts[name]}" for name in _PARTS if name in parts]
    executed = {machine: count for machine in MACHINES if (count := _counts()[machine][argument])}
    if executed:
        numbers = set(executed.values())
        if len(numbers) == 1 and len(executed) == len(MACHINES):
            lines.append(f"- Executed: {_instructions(numbers.pop())} on each machine")
        else:
            lines.append(
                "- Executed: " + ", ".join(f"{_instructions(count)} on {code(name)}" for name, count in executed.items())
            )
    if ends := [panic for panic, files in going_there().items() if argument in files]:
        lines.append("- Panics: " + ", ".join(f"[{name}](panics.md#{name.lower()})" for name in ends))
    return "\n".join(lines)


def _order() -> list[str]:
    """As the CPU comes to them; what `bare` alone has where it parts from the others."""
    own = _walk(BARE.name)
    last = max(MACHINES, key=lambda machine: len(_walk(machine)))
    others = {name: at for machine in MACHINES if machine != BARE.name for name, (at, _) in _walk(machine).items()}
    others |= {name: at for name, (at, _) in _walk(last).items()}
    order = sorted(others, key=lambda name: others[name])
    parting = next(at for at, name in enumerate(order) if name not in own)
    return [*order[:parting], *(name for name in own if name not in others), *order[parting:]]


def _anchor(name: str) -> str:
    return name.replace(".", "")


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _instructions(count: int) -> str:
    return f"{count:,} instruction{'' if count == 1 else 's'}"


def _header(text: str) -> dict[str, str]:
    """In, Out and Clobbers of the comment that a file opens with."""
    parts: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if found := re.fullmatch(r"# (\w+): +(.+)", line):
            name, parts[found[1]] = found[1], found[2]
        elif name and line.startswith("#   "):
            parts[name] += f" {line[1:].strip()}"
        else:
            name = ""
    return parts


@cache
def _counts() -> Mapping[str, Counter[str]]:
    """By machine and file: executed instructions, of a rep each round, from the reset vector to the guest's first one. The
    guest is the conformance guest, with the default memory, a command line, and no initrd."""
    return {machine: Counter({name: count for name, (_, count) in _walk(machine).items()}) for machine in MACHINES}


@cache
def _walk(machine: str) -> Mapping[str, tuple[int, int]]:
    spec = MACHINES[machine]
    blob = default_blob(spec)
    found: dict[str, tuple[int, int]] = {}
    with open_kernel(None, None) as kernel:
        plan = make_plan(spec, blob.data, kernel, memory=parse_memory(DEFAULT_MEMORY), cmdline=_CMDLINE)
        recorded = record_boot(plan, blob, get_engine("unicorn"), Limits(), kernel_instructions=0)
    for number, record in enumerate(recorded.firmware):
        assert record.place is not None
        name = record.place.source.partition(":")[0]
        first, count = found.get(name, (number, 0))
        ends = record.text.startswith("rep") and record.changes.get("ecx") == 0  # which is counted, too
        found[name] = first, count + record.times + ends
    assert sum(count for _, count in found.values()) == recorded.outcome.run.counts["instructions"]
    return found


BLOCKS: Final[Mapping[str, Callable[[str], str]]] = {"instructions": counts_table, "contract": contract}
