"""From the keywords of a test to a machine: what they do, what cannot be, and what is kept for the next machine."""

from contextlib import ExitStack

import pytest
from pvhboot.emu.kit.setup import Store
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.abi.devices import COM1_PORT
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE
from pvhboot.shim.stock import build_guest, default_blob


class Nothing:
    """A device that is never asked."""

    read = write = print


class Deaf:
    """No device: nothing can be written to it."""

    read = print


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"firmwre": "x"}, "a machine has no 'firmwre'; there is: engine, firmware, manifest, kernel"),
        ({"firmware": "/nowhere/x.rom"}, "/nowhere/x.rom: cannot read the firmware: No such file"),
        ({"firmware": b"x" * 100}, "a firmware of 100 bytes is not possible"),
        ({"manifest": "bios.json"}, "a manifest is about the ROM of a file"),
        ({"kernel": "/nowhere/vmlinux"}, "/nowhere/vmlinux: cannot be opened: No such file"),
        ({"kernel": b"no ELF"}, "kernel of the test: "),
        ({"machine": "vax"}, "no machine named 'vax'; there is: bare, microvm"),
        ({"engine": "bochs"}, "no engine named 'bochs'; there is: unicorn, kvm, qemu"),
        ({"memory": "much"}, "cannot read the memory size 'much'"),
        ({"base": "here"}, "cannot read base 'here'"),
        ({"reserve": ["1M"]}, "cannot read reserve '1M'"),
        ({"initrd": "/nowhere/initrd"}, "/nowhere/initrd"),
        ({"fw_cfg": {"x": b""}}, "the machine bare has no fw_cfg: there is nothing for fw_cfg to change"),
        ({"dma": False}, "the machine bare has no fw_cfg: there is nothing for dma to change"),
        ({"recording": "/nowhere/x.json"}, "/nowhere/x.json: cannot read the recording"),
        ({"machine": "microvm", "fw_cfg": {"x" * 60: b""}}, "fw_cfg has no room for a file name of 60 bytes"),
        ({"devices": {COM1_PORT: Nothing()}}, "port 0x3f8 belongs to serial already: Nothing cannot have it"),
        ({"devices": {range(5, 5): Nothing()}}, "Nothing at range.5, 5.: give a port or an address, or a range of them"),
        ({"devices": {"x": Nothing()}}, "Nothing at 'x': give a port or an address, or a range of them"),
        ({"devices": {0x100000: Nothing()}}, r"Nothing at 0x100000: there is memory \(.*\), so that it would not be asked"),
        ({"devices": [Nothing()]}, "devices is a list: give Mapping"),
        ({"devices": {0x61: object()}}, r"object at 0x61 is no device: it has no read\(offset, size\)"),
        ({"devices": {0x61: Deaf()}}, r"Deaf at 0x61 is no device: it has no write\(offset, size, value\)"),
        ({"machine": "microvm", "fw_cfg": {"etc/x": "text"}}, "fw_cfg: 'etc/x' is a str: give bytes or None, by a key or by"),
        ({"machine": "microvm", "fw_cfg": {0x4014: b"x"}}, "fw_cfg: no item can have the key 0x4014"),
        ({"machine": "microvm", "fw_cfg": {-1: b"x"}}, "fw_cfg: no item can have the key -0x1"),
        ({"modules": "initrd"}, "modules is a str: give list or tuple"),
        ({"reserve": "1M@32M"}, "reserve is a str: give list or tuple"),
        ({"firmware": bytearray(0x1000)}, "firmware is a bytearray: give str or PathLike or bytes or Blob or None"),
        ({"append": b"quiet"}, "append is a bytes: give str or None"),
        ({"kernel": 3}, "kernel is a int: give str or PathLike or bytes or Kernel or None"),
        ({"seconds": 0}, "seconds=0: give a number above 0"),
        ({"engine": "qemu", "devices": {1: Nothing()}}, "the qemu engine brings fw_cfg and devices of its own"),
    ],
)
def test_a_machine_that_cannot_be(pvh, options, message):
    with pytest.raises(BootError, match=message):
        pvh(**options)


def test_a_rom_with_its_manifest_has_labels(pvh, tmp_path):
    rom, manifest = tmp_path / "bios.bin", tmp_path / "bios.json"
    blob = default_blob(BARE)
    rom.write_bytes(blob.data)
    manifest.write_text(blob.to_json())
    machine = pvh(firmware=rom, manifest=manifest)
    machine.run_until("protected_mode")
    assert str(machine.where).startswith("protected_mode (flat32.s:")
    with pytest.raises(BootError, match="no symbol 'protected_mode'"):
        pvh(firmware=rom).run_until("protected_mode")


def test_items_of_fw_cfg_are_replaced_and_added(pvh):
    """The command line is an item with a key; the firmware reads as much as its size says."""
    line = b"from the test\0"
    machine = pvh(machine="microvm", fw_cfg={0x14: len(line).to_bytes(4, "little"), 0x15: line, "opt/mine": b"x"})
    assert machine.run_until_handoff().start_info.cmdline == "from the test"


def test_kernels_as_bytes_by_path_and_open(pvh, tmp_path):
    data = build_guest("elf32")
    (tmp_path / "guest").write_bytes(data)
    with Kernel.from_bytes(data, "mine") as kernel:
        found = [pvh(kernel=each).run_until_handoff() for each in (data, tmp_path / "guest", kernel)]
    assert found[0] == found[1] == found[2]


def test_a_kernel_is_read_once_until_its_file_changes(pvh, tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(build_guest("elf32"))
    first, second = pvh(kernel=path), pvh(kernel=str(path))
    assert first.plan.kernel is second.plan.kernel
    path.write_bytes(build_guest("elf64") + b"more")
    third = pvh(kernel=path)
    assert third.plan.kernel.kind == "ELF64"
    third.run_until_handoff().check_abi()
    assert first.plan.kernel.kind == "ELF32"


def test_a_store_closes_what_nobody_uses(tmp_path):
    store, kernels = Store(), []
    for number in range(12):
        (tmp_path / str(number)).write_bytes(build_guest("elf64"))
        with ExitStack() as opened:
            kernels.append(store.kernel(tmp_path / str(number), opened))
    with ExitStack() as opened:
        used = store.kernel(tmp_path / "11", opened)
        assert used is kernels[11]
        assert [kernel.descriptor >= 0 for kernel in kernels] == [False] * 4 + [True] * 8
    store.close()
    assert not any(kernel.descriptor >= 0 for kernel in kernels)


def test_a_store_leaves_open_what_is_used(tmp_path):
    store = Store()
    with ExitStack() as opened:
        kernels = []
        for number in range(12):
            (tmp_path / str(number)).write_bytes(build_guest("elf64"))
            kernels.append(store.kernel(tmp_path / str(number), opened))
        assert all(kernel.descriptor >= 0 for kernel in kernels)
    store.close()


@pytest.mark.parametrize("count", [-1, 1.0, None])
def test_steps_that_are_no_number(pvh, count):
    with pytest.raises(BootError, match=rf"step\({count}\): give a number of instructions"):
        pvh().step(count)
