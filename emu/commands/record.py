"""`pvhboot record`: what a QEMU machine tells its firmware, as a file for `pvhboot boot --recording`."""

import argparse
from typing import Final

from pvhboot.loader.recording import parse_recording
from pvhboot.loader.sizes import parse_memory, show_size
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import machine

from ..engines.qemu.recorder import record
from ..outputs import require_outputs, write_files

_CPUS_MAX: Final = 255


def run(arguments: argparse.Namespace) -> int:
    """Records, writes, says what it has."""
    spec = machine(arguments.machine)
    if not 1 <= arguments.smp <= _CPUS_MAX:
        raise BootError(f"--smp {arguments.smp}: give 1 to {_CPUS_MAX}")
    memory = parse_memory(arguments.memory)
    if not spec.ram_min <= memory <= spec.ram_max:
        low, high = show_size(spec.ram_min), show_size(spec.ram_max)
        raise BootError(f"{show_size(memory)} of memory: the machine {spec.name} takes {low} to {high}")
    require_outputs([arguments.output])
    recording = record(spec, memory, arguments.smp, arguments.qemu_arg)
    text = recording.to_json().encode()
    parse_recording(text)  # what `boot` would not take is not written
    write_files([(arguments.output, text)])
    print(
        f"{arguments.output}: {spec.name} of QEMU {recording.qemu}, {show_size(memory)}, {recording.cpus} CPU"
        f"{'' if recording.cpus == 1 else 's'}: {len(recording.files)} files, {len(recording.functions)} PCI functions, "
        f"{len(text)} bytes"
    )
    return 0
