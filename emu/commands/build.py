"""`pvhboot build`: writes a firmware image, and on request what describes it."""

import argparse

from pvhboot.loader.sizes import parse_memory, show_size
from pvhboot.shim.abi.firmware import PARAMS
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import build
from pvhboot.shim.machines import MIB, firmware_machine
from pvhboot.shim.stage import Stage, read_stage

from ..inputs import open_kernel
from ..outputs import write_files
from .common import cache_from, inputs_of, plan_from


def run(arguments: argparse.Namespace) -> int:
    """Builds, proves a custom stage, writes."""
    spec = firmware_machine(arguments.machine)
    stages = [_stage(text) for text in arguments.stage]
    blob = build(spec, stages, size=_size(arguments.size), verbose=arguments.verbose, marks=arguments.marks)
    if stages:
        from ..stagecheck import check_stage

        for stage in stages:
            check_stage(spec, blob, stage)
    blob, boots = _filled(arguments, blob)
    files = [(arguments.output, blob.data)]
    for path, data in (
        (arguments.elf, blob.elf),
        (arguments.listing, lambda: blob.listing_text().encode()),
        (arguments.manifest, lambda: blob.to_json().encode()),
    ):
        if path is not None:
            files.append((path, data()))
    write_files(files, [*inputs_of(arguments), *(text.partition("=")[2] for text in arguments.stage)])
    print(
        f"{arguments.output}: {spec.name}, {show_size(len(blob.data))}, "
        f"{blob.manifest['code_bytes']} bytes of code and tables, sha256 {blob.sha256[:12]}{boots}"
    )
    return 0


def _size(text: str) -> int:
    size = parse_memory(text)
    if size > 64 * MIB:
        raise BootError(f"--size {text}: a plain number is MiB; write 64K for 64 KiB")
    return size


def _stage(text: str) -> Stage:
    slot, separator, path = text.partition("=")
    if not separator or not path:
        raise BootError(f"cannot read --stage {text!r}: write before-handoff=FILE")
    return read_stage(slot, path)


def _filled(arguments: argparse.Namespace, blob: Blob) -> tuple[Blob, str]:
    """The blob with its parameter block filled for --kernel, its manifest with the plan; as built without."""
    if arguments.kernel is None:
        for name in ("append", "initrd", "module", "memory", "base", "reserve", "guest"):
            if getattr(arguments, name):
                raise BootError(f"--{name} says what to boot: it needs --kernel")
        return blob, ""
    if blob.manifest["spec"]["source"] != PARAMS:
        raise BootError(f"--kernel: the firmware of {arguments.machine} asks fw_cfg what to boot: give the kernel to QEMU")
    with open_kernel(arguments.kernel, cache_from(arguments)) as kernel:
        plan = plan_from(arguments, kernel, blob.data)
    filled = Blob(plan.rom, *blob.description)
    rom = {**blob.manifest["rom"], "sha256": filled.sha256}
    manifest = {**blob.manifest, "rom": rom, "boots": plan.to_json()}
    return Blob(plan.rom, blob.symbols, blob.listing, manifest), f", boots {arguments.kernel}"
