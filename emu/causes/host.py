"""Rules on how a firmware talks to fw_cfg, and on what pvhboot's own firmware says of itself."""

from collections.abc import Iterator, Mapping
from typing import Final

from pvhboot.loader.fw_cfg import fw_cfg_items
from pvhboot.loader.image import SizedSource
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.firmware import FW_CFG, PANIC_PREFIX, PANICS, PARAMS
from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.machines import MACHINES, PARAMS_PADDR

from ..bus import OUT
from ..devices.fw_cfg import DMA_NAME, NAME
from ..instruction import read_instruction, register_value
from ..reasons import HALT
from ..recent import swapped
from .scene import Cause, Scene

_BEFORE: Final = 4  # instructions in front of a conditional jump make its condition
_FILES: Final = range(fw_cfg.FW_CFG_FILE_FIRST, fw_cfg.FW_CFG_ENTRY_MASK + 1)
SMALL: Final = 1 << 16  # numbers of the directory below it, with their bytes turned, are large
_SWAP: Final = "fw_cfg's directory, its DMA register and its DMA descriptors are big-endian; an x86 CPU is not."


def _items(scene: Scene) -> Mapping[int, SizedSource]:
    return fw_cfg_items(scene.plan, scene.recording) if scene.plan.source == FW_CFG else {}


def built_for_bare(scene: Scene) -> Cause | None:
    """A firmware that finds all in its own ROM, where the tables are to be had from fw_cfg alone."""
    spec = scene.plan.spec
    if (scene.plan.source, spec.source) != (PARAMS, FW_CFG) or "acpi.tables" not in scene.violated:
        return None
    if any(access.device in (NAME, DMA_NAME) for access in scene.accesses):
        return None
    return Cause(
        "the firmware is built for the machine bare, and asks no fw_cfg",
        f"What to boot it reads from a block in its ROM, which pvhboot has filled; of what {spec.name} has besides, ACPI "
        "tables, only fw_cfg tells. A plain QEMU fills no block: there it panics with NO_PARAMS.",
        (f"a parameter block at {PARAMS_PADDR:#x}", scene.violated["acpi.tables"]),
        f"build it for {spec.name}: pvhboot build --machine {spec.name}, or --machine universal",
        ("acpi.tables",),
    )


def dma_register_not_swapped(scene: Scene) -> Cause | None:
    """The address of the descriptor goes to the DMA register in the CPU's own byte order."""
    size = fw_cfg.FW_CFG_DMA.size
    for access in scene.accesses:
        if (access.kind, access.address, access.size) != (OUT, fw_cfg.FW_CFG_DMA_LOW_PORT, 4) or access.device != DMA_NAME:
            continue
        taken, written = scene.read(swapped(access.value), size), scene.read(access.value, size)
        if (taken is None or not any(taken)) and written is not None and any(written):
            return Cause(
                "the address in fw_cfg's DMA register was not swapped",
                f"{_SWAP} The host takes what was written for {swapped(access.value):#x}; at {access.value:#x} lies something.",
                (f"out {access.address:#x}, {access.value:#x}", f"at {access.value:#x}: {written.hex(' ')}"),
                "bswap the address of the descriptor before the out",
            )
        return None
    return None


def dma_never_started(scene: Scene) -> Cause | None:
    """Only the upper half of the DMA register is written."""
    outs = [access for access in scene.accesses if access.kind == OUT and access.device == DMA_NAME]
    if not outs or any(access.address == fw_cfg.FW_CFG_DMA_LOW_PORT for access in outs):
        return None
    return Cause(
        "the DMA transfer of fw_cfg is never started",
        f"A store to the lower half of the register, port {fw_cfg.FW_CFG_DMA_LOW_PORT:#x}, starts the transfer. Only port "
        f"{outs[0].address:#x} was written.",
        tuple(f"out {access.address:#x}, {access.value:#x}" for access in outs[:2]),
        "write the lower half of the descriptor's address, swapped, to the second port",
    )


def _bad_transfers(scene: Scene) -> Iterator[Cause]:
    items = _items(scene)
    known = scene.plan.memmap is not None
    spans = [*scene.plan.spec.low.spans(), *(module.span for module in scene.plan.modules)]
    biggest = max((source.size for source in items.values()), default=0)
    for control, length, address, descriptor, instruction in scene.history.transfers:
        where = f"{scene.at(instruction)}: descriptor at {descriptor:#x}, length {length:#x}, address {address:#x}"
        if control & fw_cfg.FW_CFG_DMA_CTL_SELECT:
            key = control >> fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT
            where += f", key {key:#x}"
            turned = int.from_bytes(key.to_bytes(2, "little"), "big")
            if key & ~fw_cfg.FW_CFG_WRITE_CHANNEL not in items and turned in items:
                yield Cause(
                    "a key of fw_cfg was not swapped",
                    f"{_SWAP} There is no item {key:#x}, and there is {turned:#x}.",
                    (where,),
                    "swap the bytes of the key where it is read from the directory, or written into the descriptor",
                )
        if length > biggest and 0 < swapped(length) <= biggest:
            yield Cause(
                "the length in a DMA descriptor was not swapped",
                f"{_SWAP} No item has {length:#x} bytes; swapped it is {swapped(length):#x}.",
                (where,),
                "bswap the length before it is stored to the descriptor",
            )
        turned = swapped(address % ADDRESS_4G)
        inside = [any(span.start <= one < span.end for span in spans) for one in (address, turned)]
        if (known and inside == [False, True]) or (scene.read(address, 1) is None and scene.read(turned, 1) is not None):
            yield Cause(
                "the address in a DMA descriptor was not swapped",
                f"{_SWAP} The host has written to {address:#x}; {turned:#x} was meant.",
                (where,),
                "bswap the address before it is stored to the descriptor",
            )


def bad_transfer(scene: Scene) -> Cause | None:
    """A descriptor of which a part is in the wrong byte order."""
    return next(_bad_transfers(scene), None)


def not_selected(scene: Scene) -> Cause | None:
    """A file is read as if it were the item, without being selected."""
    if scene.stop.reason != HALT or not scene.in_firmware:
        return None
    sizes = {source.size: key for key, source in _items(scene).items() if key in _FILES}
    reading = None
    for control, length, address, descriptor, instruction in scene.history.transfers:
        if control & fw_cfg.FW_CFG_DMA_CTL_SELECT:
            reading = control >> fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT
        elif reading == fw_cfg.FW_CFG_FILE_DIR and length in sizes and control & fw_cfg.FW_CFG_DMA_CTL_READ:
            return Cause(
                "a file of fw_cfg is read without being selected",
                f"{length} bytes, the size of file {sizes[length]:#x}, are read, and the directory is what is selected still.",
                (f"{scene.at(instruction)}: descriptor at {descriptor:#x}, control {control:#x}, to {address:#x}",),
                "set the select bit and the file's key in the control word of the first transfer",
            )
    return None


def refused(scene: Scene) -> Cause | None:
    """fw_cfg has answered a transfer with its error bit, and the firmware has stopped."""
    if not scene.in_firmware or not scene.history.transfers:
        return None
    last = scene.history.transfers[-1]
    word = scene.read(last.descriptor, 4)
    if word is None or not int.from_bytes(word, "big") & fw_cfg.FW_CFG_DMA_CTL_ERROR:
        return None
    there = scene.read(last.address, 1) is not None
    why = "Is it memory that can be written?" if there else "The machine has no memory there, or it was not opened yet."
    return Cause(
        "fw_cfg has refused a DMA transfer",
        f"{last.length:#x} bytes at {last.address:#x}: the host has set the error bit. {why}",
        (f"{scene.at(last.instruction)}: descriptor at {last.descriptor:#x}, control {last.control:#x} before",),
        "look at the address; on a PC: at the PAM registers, which open the memory in front of 1 MiB",
    )


def key_not_swapped(scene: Scene) -> Cause | None:
    """The same by the selector port."""
    items = _items(scene)
    for access in scene.accesses if items else ():
        if (access.kind, access.address) != (OUT, fw_cfg.FW_CFG_PORT) or access.size != fw_cfg.FW_CFG_PORTS:
            continue
        turned = int.from_bytes(access.value.to_bytes(2, "little"), "big")
        if access.value & ~fw_cfg.FW_CFG_WRITE_CHANNEL not in items and turned in items:
            return Cause(
                "a key of fw_cfg was not swapped",
                f"{_SWAP} There is no item {access.value:#x}, and there is {turned:#x}.",
                (f"out {access.address:#x}, {access.value:#x}",),
                "swap the bytes of the key where it is read from the directory",
            )
    return None


def number_not_swapped(scene: Scene) -> Cause | None:
    """A number of the directory is taken as it was read, and found too large: the last conditional jump looks at it. Where
    something else has been read since, 0x100000 is an address rather than a size of 0x1000."""
    if scene.stop.reason != HALT or not scene.in_firmware or _last_selected(scene) != fw_cfg.FW_CFG_FILE_DIR:
        return None
    sizes = {key: source.size for key, source in _items(scene).items() if key in _FILES}
    names = {size: f"the size of file {key:#x}" for key, size in sizes.items()} | {len(sizes): "the number of files"}
    turned = {swapped(value): (value, name) for value, name in names.items() if 1 < value < SMALL}
    last, executed = scene.history.last_branch, scene.history.executed
    before = () if last is None else executed[max(0, last - _BEFORE) : last]
    ones = [read_instruction(one.data, one.address, one.bits, one.registers) for one in before]
    operands = [(step, one, operand) for step, one in zip(before, ones, strict=True) for operand in one.operands]
    mended = {operand.value for _, one, operand in operands if one.mnemonic == "bswap"}
    for step, _, operand in operands:
        held = register_value(step.registers, operand.name)
        if held in turned and held not in mended:
            value, name = turned[held]
            return Cause(
                "a number of fw_cfg's directory was not swapped",
                f"{_SWAP} {operand.name} holds {held:#x}, which swapped is {value:#x}: {name}.",
                (f"{scene.shown(step)}, with {operand.name} {held:#x}",),
                f"bswap {operand.name} in front of it",
            )
    return None


def _last_selected(scene: Scene) -> int | None:
    """The key of the item that was selected last, by DMA if there was any; None if there is none."""
    for transfer in reversed(scene.history.transfers):
        if transfer.control & fw_cfg.FW_CFG_DMA_CTL_SELECT:
            return transfer.control >> fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT
    selector = (OUT, fw_cfg.FW_CFG_PORT, fw_cfg.FW_CFG_PORTS)
    return next((access.value for access in reversed(scene.accesses) if access[:3] == selector), None)


def panicked(scene: Scene) -> Cause | None:
    """pvhboot's firmware has stopped itself, and says why."""
    if scene.stop.reason != HALT or not scene.in_firmware or PANIC_PREFIX.encode() not in scene.debug_console:
        return None
    panic = next((panic for panic in PANICS if scene.post_codes and panic.code == scene.post_codes[-1]), None)
    if panic is None:
        return None
    branch = scene.history.last_branch
    jump = [] if branch is None else [f"the jump that led there: {scene.shown(scene.history.executed[branch])}"]
    remedy = "docs/panics.md lists what each code means"
    if panic.name == "NO_FW_CFG" and scene.plan.spec.source != FW_CFG:
        others = ", ".join(f"--machine {spec.name}" for spec in MACHINES.values() if spec.source == FW_CFG)
        remedy = f"{scene.plan.spec.name} has no fw_cfg; boot it on a machine that has, the one that it is built for: {others}"
    return Cause(
        f"the firmware has stopped itself: {panic.name}",
        f"It says: {panic.text}.",
        (f"POST code {panic.code:#04x}", *jump),
        remedy,
    )


RULES: Final = (
    built_for_bare,
    dma_register_not_swapped,
    dma_never_started,
    bad_transfer,
    not_selected,
    key_not_swapped,
    number_not_swapped,
    refused,
)
LAST: Final = (panicked,)
