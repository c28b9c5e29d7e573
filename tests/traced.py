"""Traces of boots, for tests: of a guest in assembly, or of what a plan says."""

import forge_faults as forge
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.places import Places
from pvhboot.emu.session import boot, get_engine
from pvhboot.emu.trace import End, Record, Tracer, Window
from pvhboot.emu.trace_diff import Trace
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.devices import DEBUG_EXIT_PORT
from pvhboot.shim.assembler import assemble
from pvhboot.shim.blob import Blob
from pvhboot.shim.machines import BARE, MIB, MachineSpec
from pvhboot.shim.source import Unit
from pvhboot.shim.stock import default_blob, default_guest

LEAVE = f"    mov edx, {DEBUG_EXIT_PORT}\n    mov al, 0\n    out dx, al\n"


def flat_guest(code: str) -> bytes:
    """A kernel of 32-bit code without paging that leaves at its end, as an ELF file."""
    program = assemble([Unit("guest.s", f".code32\n{code}\n{LEAVE}", forge.CODE)], {})
    return forge.elf_of({forge.CODE: b"".join(data for _, data in program.pieces)})


def trace_of(
    engine: str,
    until: str,
    kernel: bytes | None = None,
    *,
    spec: MachineSpec = BARE,
    blob: Blob | None = None,
    window: Window = Window(),  # noqa: B008
) -> list[Record | End]:
    """What a tracer tells of a boot; without a kernel that of the conformance guest."""
    items: list[Record | End] = []
    blob = blob or default_blob(spec)
    with Kernel.from_bytes(default_guest(64) if kernel is None else kernel, "guest") as loaded:
        plan = make_plan(spec, blob.data, loaded, memory=64 * MIB, cmdline="hello")
        tracer = Tracer(Places(plan, blob), items.append, window)
        boot(plan, blob, get_engine(engine), Until(until), Limits(seconds=20.0), watchers=[tracer])
    return items


def guest_records(code: str, engine: str = "unicorn") -> list[Record]:
    """Those of a flat guest, without the three instructions that leave."""
    items = trace_of(engine, "exit", flat_guest(code), window=Window(begin=frozenset((forge.CODE,))))
    records = [item for item in items if isinstance(item, Record)]
    assert isinstance(items[-1], End)
    assert items[-1].reason == "exit"
    return records[:-3]


def complete(items: list[Record | End], *, sees_memory: bool = True) -> Trace:
    """To be compared."""
    return Trace(items, sees_memory, complete=True)
