"""Rules on start_info, modules, command line, and the payload itself."""

from collections.abc import Iterator
from typing import Final

from pvhboot.loader.payload import Payload
from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.pvh import StartInfo
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MIB

from ..subject import inside
from .scene import Cause, Scene, counted

_START_INFO: Final = (
    *("start_info.location", "start_info.magic", "start_info.fields", "memmap.location", "memmap.count", "memmap.ram"),
    *("acpi.tables", "modules.list", "cmdline", "memory.disjoint"),
)
_MAGIC: Final = pvh.XEN_HVM_START_MAGIC_VALUE.to_bytes(4, "little")


def _plausible(scene: Scene, info: StartInfo) -> bool:
    """Whether all but the magic is as in a start_info."""
    return (
        info.version <= pvh.HVM_START_INFO_VERSION
        and 1 <= info.memmap_entries <= pvh.MEMMAP_MAX_ENTRIES
        and inside(info.memmap_paddr, pvh.HVM_MEMMAP_ENTRY.size, scene.plan.ram)
    )


def _start_infos(scene: Scene) -> Iterator[int]:
    """Where in the first MiB a start_info lies."""
    for span in scene.plan.ram:
        for page in range(span.start, min(span.end, MIB), PAGE_SIZE):
            data = scene.read(page, PAGE_SIZE) or b""
            at = data.find(_MAGIC)
            while at >= 0:
                whole = scene.read(page + at, pvh.HVM_START_INFO.size)
                if at % 4 == 0 and whole is not None and _plausible(scene, pvh.HVM_START_INFO.unpack(whole)):
                    yield page + at
                at = data.find(_MAGIC, at + 1)


def start_info_lost(scene: Scene) -> Cause | None:
    """%ebx leads to no start_info, or to one that is not where it may be."""
    if scene.handoff is None or scene.tables is None:
        return None
    violated, info, ebx = scene.violated, scene.tables.start_info, scene.handoff.registers["ebx"]
    if "start_info.magic" not in violated:
        return _misplaced(scene, ebx) if "start_info.location" in violated else None
    writers = [one for one in scene.history.executed if _writes_ebx(one.text)]
    evidence = [f"ebx {ebx:#x}"] + ([f"its last writer: {scene.shown(writers[-1])}"] if writers else [])
    clauses = tuple(clause for clause in violated if clause in _START_INFO)
    found = next((at for at in _start_infos(scene) if at != ebx), None)
    if found is not None:
        return Cause(
            "ebx does not point to start_info",
            f"There is a start_info at {found:#x}, and ebx has another address: it was overwritten, or never loaded.",
            (*evidence, f"start_info with its magic at {found:#x}"),
            f"load ebx with {found:#x} right before the jump to the kernel",
            clauses,
        )
    if info is not None and _plausible(scene, info):
        return Cause(
            "start_info has the wrong magic",
            f"What ebx points to looks like a start_info, but begins with {info.magic:#x}, not with "
            f"{pvh.XEN_HVM_START_MAGIC_VALUE:#x}: a kernel stops at that, or takes the boot for one of another protocol.",
            tuple(evidence),
            f"store {pvh.XEN_HVM_START_MAGIC_VALUE:#x} to its first 4 bytes",
            clauses,
        )
    if not scene.has_memory:
        return Cause(
            "ebx does not point to start_info",
            "It was overwritten, or never loaded, or there is no start_info at all.",
            tuple(evidence),
            "boot it with --engine unicorn, which looks for start_info, and for who has written to ebx",
            clauses,
        )
    return Cause(
        "there is no start_info",
        "Neither where ebx points nor elsewhere below 1 MiB is one.",
        tuple(evidence),
        "make one in RAM, and give its address in ebx",
        clauses,
    )


def _writes_ebx(text: str) -> bool:
    mnemonic, _, operands = text.partition(" ")
    return operands.partition(",")[0] in ("ebx", "bx", "bl", "bh") and mnemonic not in ("cmp", "test", "push")


def _misplaced(scene: Scene, ebx: int) -> Cause:
    where = "at 0, which in ebx means that there is none" if not ebx else f"at {ebx:#x}, {_where(scene, ebx)}"
    return Cause(
        "start_info lies where it must not" if ebx else "start_info lies at 0",
        f"It is {where}. The kernel may lose it before it has read it, or not find it at all.",
        (f"ebx {ebx:#x}", scene.violated["start_info.location"]),
        "put it into RAM that the memory map calls usable, above 0 and below 1 GiB",
        ("start_info.location", "memory.disjoint"),
    )


def _where(scene: Scene, paddr: int) -> str:
    reserved = next((span for span in scene.plan.reserved if span.start <= paddr < span.end), None)
    if reserved is not None:
        return "in memory that is reserved"
    if scene.in_rom(paddr):
        return "in the ROM"
    return "in RAM" if inside(paddr, 1, scene.plan.ram) else "where no usable RAM is"


def cmdline_pointer(scene: Scene) -> Cause | None:
    """cmdline_paddr does not lead to the command line."""
    if "cmdline" not in scene.violated or scene.tables is None or scene.tables.start_info is None:
        return None
    paddr, told, wanted = scene.tables.start_info.cmdline_paddr, scene.tables.cmdline, scene.plan.cmdline or b""
    evidence = (f"cmdline_paddr {paddr:#x}", scene.violated["cmdline"])
    if not paddr:
        title, why = "the command line is not handed over", "cmdline_paddr is 0, which means that there is none."
        remedy = "store the address of the command line to start_info's cmdline_paddr"
    elif paddr in (len(wanted), len(wanted) + 1):
        title, why = "cmdline_paddr holds the size of the command line", f"{paddr:#x} is its length, not its address."
        remedy = "store the address, not the number of bytes, to cmdline_paddr"
    elif told and told != wanted and wanted.endswith(told):
        title = f"cmdline_paddr points {counted(len(wanted) - len(told), 'byte', 'bytes')} into the command line"
        why, remedy = "The kernel gets the end of it only.", "store the address of its first byte"
    elif told == wanted:
        title, why = "the command line lies where it must not", f"All of it is there, {_where(scene, paddr)}."
        remedy = "put it into RAM that the memory map calls usable, above 0 and below 1 GiB"
    elif told is not None and wanted.startswith(told):
        title, why = "the command line is cut off", f"{len(told)} of its {len(wanted)} bytes are there."
        remedy = "copy all of it, with the NUL at its end"
    else:
        return None
    return Cause(title, why, evidence, remedy, ("cmdline",))


def initrd_not_told(scene: Scene) -> Cause | None:
    """There is an initrd, and start_info has no module."""
    if scene.tables is None or scene.tables.start_info is None or "modules.list" not in scene.violated:
        return None
    if scene.tables.start_info.nr_modules or not scene.plan.modules:
        return None
    return Cause(
        "the initrd is not handed over",
        "nr_modules is 0: a Linux would find no initrd, and panic when it wants to mount its root.",
        (scene.violated["modules.list"],),
        "set nr_modules and modlist_paddr of start_info",
        ("modules.list",),
    )


def initrd_misplaced(scene: Scene) -> Cause | None:
    """The first module is not where the host wanted it."""
    if scene.tables is None or "modules.entries" not in scene.violated or not scene.tables.modules or not scene.plan.modules:
        return None
    told, planned = scene.tables.modules[0], scene.plan.modules[0]
    if told.paddr >= ADDRESS_4G and told.paddr % ADDRESS_4G == planned.paddr:
        return Cause(
            "the upper half of the initrd's address is garbage",
            f"The field has 64 bits; its lower half is right ({planned.paddr:#x}), its upper one was never written.",
            (f"module 0 at {told.paddr:#x}",),
            "store 0 to the upper 4 bytes of each field of the module list",
            ("modules.entries",),
        )
    if told.paddr == planned.paddr:
        return None
    kernel = [one for one in scene.plan.segments if told.paddr < one.end and one.paddr < told.paddr + told.size]
    if kernel:
        place = f"over the kernel, which lies at {kernel[0].paddr:#x}-{kernel[-1].end:#x}"
    elif told.paddr < MIB:
        place = "below 1 MiB, where the firmware and the kernel's own start-up code work"
    else:
        place = "in RAM" if inside(told.paddr, told.size, scene.plan.usable_ram) else "where no usable RAM is"
    clauses = ("modules.entries", "memory.disjoint", "memory.payload")
    stores = [one for one in scene.history.stores if one.by_device]
    return Cause(
        "the initrd is not where the host says",
        f"It lies {place}. The host has chosen {planned.paddr:#x} (fw_cfg's INITRD_ADDR), where nothing else lies.",
        (
            f"module 0 at {told.paddr:#x}, {told.size:#x} bytes; the host says {planned.paddr:#x}",
            *(f"{scene.shown_at(one.instruction)}: has the host write to {one.span} at {one.paddr:#x}" for one in stores[:1]),
        ),
        "copy it to the address that the item INITRD_ADDR says",
        tuple(clause for clause in clauses if clause in scene.violated),
    )


def module_garbage(scene: Scene) -> Cause | None:
    """Fields of the module list that nobody has cleared."""
    if scene.tables is None or "modules.entries" not in scene.violated:
        return None
    dirty = next((one for one in scene.tables.modules if one.reserved), None)
    if dirty is None:
        return None
    return Cause(
        "the rest of the module list is never cleared",
        "RAM is not zero after power on: what a firmware leaves out of a structure holds anything.",
        (f"reserved field {dirty.reserved:#x}, cmdline_paddr {dirty.cmdline_paddr:#x}",),
        "store 0 to cmdline_paddr and to the reserved field of each module",
        ("modules.entries",),
    )


def payload_changed(scene: Scene) -> Cause | None:
    """Kernel or initrd are not in memory as they are in their files."""
    if "memory.payload" not in scene.violated:
        return None
    detail = scene.violated["memory.payload"]
    stores = [one for one in scene.history.stores if one.span.startswith("kernel")]
    if stores:
        how = "has a device write" if stores[0].by_device else "stores"
        return Cause(
            "the kernel is overwritten",
            f"The instruction below {how} into the kernel that the host has loaded.",
            (f"{scene.shown_at(stores[0].instruction)}, to {stores[0].paddr:#x} ({stores[0].size} bytes)", detail),
            "keep the firmware's own data out of the kernel's segments",
            ("memory.payload",),
        )
    if detail.startswith("kernel segment"):
        return Cause(
            "the kernel is overwritten",
            "The kernel that the host has loaded is not as in its file any more. This engine does not see who has changed it.",
            (detail,),
            "boot it with --engine unicorn, which names the instruction",
            ("memory.payload",),
        )
    for module in scene.plan.modules:
        found, wanted = scene.read(module.paddr, module.payload.size), _file(module.payload)
        if found is None or wanted is None or found == wanted:
            continue
        if not any(found):
            return Cause(
                "the initrd was never fetched",
                f"At {module.paddr:#x}, where the module list says that it lies, all bytes are 0.",
                (detail, *_refusals(scene)),
                "have the firmware read the item INITRD_DATA to that address, and look at the DMA's error bit",
                ("memory.payload",),
            )
        right = next(at for at, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other)
        if not any(found[right:]):
            return Cause(
                f"the initrd is cut off: {counted(len(wanted) - right, 'byte is', 'bytes are')} missing",
                f"Its first {right} bytes are right, and nothing is behind them.",
                (detail,),
                "look at the length of the transfer",
                ("memory.payload",),
            )
    return None


def _file(payload: Payload) -> bytearray | None:
    """All bytes of a module; None if it cannot be read any more."""
    data = bytearray(payload.size)
    try:
        payload.read_into(0, memoryview(data))
    except BootError:
        return None
    return data


def _refusals(scene: Scene) -> Iterator[str]:
    """Transfers that reached nothing."""
    for one in scene.history.transfers[-1:]:
        yield f"the last DMA transfer: {scene.at(one.instruction)}, {one.length:#x} bytes to {one.address:#x}"


def old_version(scene: Scene) -> Cause | None:
    """start_info of a version that has no memory map."""
    if scene.tables is None or scene.tables.start_info is None or "start_info.fields" not in scene.violated:
        return None
    version = scene.tables.start_info.version
    if version >= pvh.HVM_START_INFO_VERSION:
        return None
    return Cause(
        f"start_info says version {version}",
        f"Only since version {pvh.HVM_START_INFO_VERSION} it has a memory map; a Linux stops when it is told of none.",
        (f"version {version}",),
        f"store {pvh.HVM_START_INFO_VERSION} to start_info's version",
        ("start_info.fields",),
    )


def no_rsdp(scene: Scene) -> Cause | None:
    """There are ACPI tables, and start_info does not say where."""
    if scene.tables is None or scene.tables.start_info is None or "acpi.tables" not in scene.violated:
        return None
    if scene.tables.start_info.rsdp_paddr:
        return None
    return Cause(
        "the ACPI tables are not handed over",
        "The host has tables for the firmware, and rsdp_paddr is 0: the kernel would look for them in front of 1 MiB, or do "
        "without.",
        (scene.violated["acpi.tables"],),
        "store the address of the RSDP to start_info's rsdp_paddr",
        ("acpi.tables",),
    )


RULES: Final = (
    start_info_lost,
    initrd_not_told,
    initrd_misplaced,
    module_garbage,
    cmdline_pointer,
    payload_changed,
    old_version,
    no_rsdp,
)
