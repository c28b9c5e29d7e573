"""`pvhboot build`: writes a firmware image, and on request what describes it."""

import argparse

from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import build
from pvhboot.shim.machines import MIB, machine
from pvhboot.shim.stage import Stage, read_stage

from ..sizes import parse_memory, show_size
from .common import open_kernel, plan_from, write_files


def run(arguments: argparse.Namespace) -> int:
    """Builds, proves a custom stage, writes."""
    spec = machine(arguments.machine)
    stages = [_stage(text) for text in arguments.stage]
    blob = build(spec, stages, size=_size(arguments.size), verbose=arguments.verbose)
    if stages:
        from ..stagecheck import check_stage

        for stage in stages:
            check_stage(spec, blob, stage)
    rom = _filled(arguments, blob)
    files = {arguments.output: rom}
    for path, data in (
        (arguments.elf, blob.elf),
        (arguments.listing, lambda: blob.listing_text().encode()),
        (arguments.manifest, lambda: blob.to_json().encode()),
    ):
        if path is not None:
            files[path] = data()
    if len(files) != 1 + sum(path is not None for path in (arguments.elf, arguments.listing, arguments.manifest)):
        raise BootError("two outputs have the same name")
    write_files(files)
    filled = f", boots {arguments.kernel}" if arguments.kernel is not None else ""
    print(
        f"{arguments.output}: {spec.name}, {show_size(len(rom))}, {blob.manifest['code_bytes']} bytes of code and tables, "
        f"sha256 {blob.sha256[:12]}{filled}"
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


def _filled(arguments: argparse.Namespace, blob: Blob) -> bytes:
    """The ROM with its parameter block filled for --kernel; as built without."""
    if arguments.kernel is None:
        for name in ("append", "initrd", "module"):
            if getattr(arguments, name):
                raise BootError(f"--{name} says what to boot: it needs --kernel")
        return blob.data
    with open_kernel(arguments.kernel) as kernel:
        return plan_from(arguments, kernel, blob.data).rom
