"""The fw_cfg device alone, on a bus with its ports and memory of its own: no CPU. test_fw_cfg_live.py asks QEMU the same."""

import struct

import pytest
from pvhboot.emu.bus import Bus
from pvhboot.emu.devices.fw_cfg import FwCfg
from pvhboot.loader.fw_cfg import FileContents, with_directory
from pvhboot.loader.image import BytesImage, FileImage
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.recording import RecordedFile
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import Span

ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
DESCRIPTOR, BUFFER = 0x1000, 0x2000
LOW, HIGH = Span("low", 0, 0x8000), Span("high", 0x8000, 0x10000)  # next to each other, and two regions
ITEMS = {0: b"QEMU", 0x19: bytes(range(100)), 0x8002: b"arch", 0x21: b""}


class Host:
    """The device on its ports, as QEMU has them."""

    def __init__(self, items=ITEMS, *, dma=True):
        self.memory = GuestMemory([LOW, HIGH], bytes(4096))
        self.told = []
        self.memory.listeners.append(lambda paddr, size: self.told.append((paddr, size)))
        self.attach({key: BytesImage(data) for key, data in items.items()}, dma=dma)

    def attach(self, items, *, dma=True):
        """Has the device have these items."""
        self.bus = Bus("ones")
        device = FwCfg(items, self.memory, dma=dma)
        self.bus.claim_ports(0x510, 2, "fw_cfg", device, width=2)
        if device.dma_ports is not None:
            self.bus.claim_ports(0x514, 8, "dma", device.dma_ports, width=8)

    def select(self, key):
        self.bus.port_write(0x510, 2, key)

    def bytes(self, count):
        return bytes(self.bus.port_read(0x511, 1) for _ in range(count))

    def transfer(self, control, length, address=BUFFER, at=DESCRIPTOR):
        """Executes a descriptor; its control word afterwards."""
        self.memory.view(at, 16)[:] = struct.pack(">IIQ", control, length, address)
        self.start(at)
        return struct.unpack(">I", self.memory.read(at, 4))[0]

    def start(self, at):
        self.bus.port_write(0x514, 4, int.from_bytes((at >> 32).to_bytes(4, "big"), "little"))
        self.bus.port_write(0x518, 4, int.from_bytes((at & 0xFFFFFFFF).to_bytes(4, "big"), "little"))


# Selector and data port.


def test_the_signature_is_selected_at_power_on():
    assert Host().bytes(6) == b"QEMU\0\0"


@pytest.mark.parametrize(
    ("key", "data"),
    [
        (0x19, bytes(range(5))),
        (0x4019, bytes(range(5))),  # the write channel's bit is no part of the key
        (0x8002, b"arch\0"),
        (0xC002, b"arch\0"),
        (0x0002, bytes(5)),
        (0x8019, bytes(5)),
        (0x21, bytes(5)),  # empty
        (0xFFFF, bytes(5)),
    ],
)
def test_an_item_is_read_byte_by_byte_and_zeros_behind_it(key, data):
    host = Host()
    host.select(key)
    assert host.bytes(5) == data
    host.select(key)
    assert host.bytes(1) == data[:1]
    assert host.bus.port_read(0x510, 1) == data[1]


def test_only_a_store_of_two_bytes_to_the_selector_selects():
    host = Host()
    host.bytes(1)
    for port, size in ((0x510, 1), (0x511, 1)):
        host.bus.port_write(port, size, 0x19)
    assert host.bytes(3) == b"EMU"


def test_a_wide_read_gives_0_and_takes_nothing():
    host = Host()
    assert host.bus.port_read(0x510, 2) == 0
    assert host.bytes(4) == b"QEMU"


# The DMA register.


def test_without_dma_nobody_answers_there():
    host = Host(dma=False)
    assert host.bus.port_read(0x514, 4) == 0xFFFFFFFF
    assert host.transfer(SELECT | READ, 4) == SELECT | READ
    assert host.bus.log[-1].device == ""


@pytest.mark.parametrize(
    ("port", "size", "value"),
    [
        (0x514, 1, 0x51),
        (0x514, 2, 0x4551),
        (0x514, 4, 0x554D4551),
        (0x514, 8, 0x47464320554D4551),
        (0x517, 2, 0x2055),
        (0x518, 4, 0x47464320),
        (0x51B, 1, 0x47),
        (0x51B, 2, 0xFF47),
    ],
)
def test_the_dma_register_reads_as_a_signature(port, size, value):
    assert Host().bus.port_read(port, size) == value


def test_the_upper_half_of_the_address_is_used_once():
    host = Host()
    assert host.transfer(SELECT | READ, 1) == 0
    host.memory.view(DESCRIPTOR, 4)[:] = struct.pack(">I", SELECT | READ)
    host.start(DESCRIPTOR | 1 << 32)
    assert host.memory.read(DESCRIPTOR, 4) == struct.pack(">I", SELECT | READ)
    host.bus.port_write(0x518, 4, 0x00100000)
    assert host.memory.read(DESCRIPTOR, 4) == bytes(4)


@pytest.mark.parametrize(("port", "size"), [(0x518, 1), (0x518, 2), (0x516, 4), (0x514, 2)])
def test_other_stores_to_the_dma_register_do_nothing(port, size):
    host = Host()
    host.memory.view(0, 16)[:] = struct.pack(">IIQ", SELECT | READ, 4, BUFFER)
    host.bus.port_write(port, size, 0)
    assert host.told == []


# Transfers: (control, length, address) one after the other; the control words, and what then lies in the buffer.
TRANSFERS = {
    "read": ([(SELECT | READ, 4, BUFFER)], [0], b"QEMU"),
    "read-by-key": ([(0x19 << 16 | SELECT | READ, 3, BUFFER)], [0], b"\0\1\2"),
    "read-on": ([(0x19 << 16 | SELECT | READ, 3, BUFFER), (READ, 2, BUFFER)], [0, 0], b"\3\4\2"),
    "read-past-the-end": ([(SELECT | READ, 8, BUFFER)], [0], b"QEMU\0\0\0\0"),
    "read-behind-the-end": ([(SELECT | READ, 4, BUFFER), (READ, 4, BUFFER)], [0, 0], bytes(4)),
    "read-no-item": ([(0x1234 << 16 | SELECT | READ, 4, BUFFER)], [0], bytes(4)),
    "read-nothing": ([(SELECT | READ, 0, BUFFER), (READ, 1, BUFFER)], [0, 0], b"Q"),
    "read-nothing-nowhere": ([(SELECT | READ, 0, 1 << 40)], [0], b""),
    "skip": ([(SELECT | SKIP, 2, 0), (READ, 2, BUFFER)], [0, 0], b"MU"),
    "skip-past-the-end": ([(SELECT | SKIP, 0xFFFFFFFF, 0), (READ, 2, BUFFER)], [0, 0], bytes(2)),
    "skip-no-item": ([(0x1234 << 16 | SELECT | SKIP, 5, 0), (READ, 2, BUFFER)], [0, 0], bytes(2)),
    "select": ([(0x19 << 16 | SELECT | SKIP, 7, 0), (SELECT, 9, 0), (READ, 2, BUFFER)], [0, 0, 0], b"QE"),
    "nothing": ([(0, 9, 0), (READ, 2, BUFFER)], [0, 0], b"QE"),
    "read-goes-before-skip-and-write": ([(SELECT | READ | SKIP | WRITE, 2, BUFFER)], [0], b"QE"),
    "write": ([(SELECT | WRITE, 4, BUFFER)], [ERROR], b"" * 4),
    "write-goes-before-skip": ([(SELECT | WRITE | SKIP, 2, BUFFER), (READ, 2, BUFFER)], [ERROR, 0], b"MU"),
    "write-nothing": ([(SELECT | WRITE, 0, BUFFER)], [0], b""),
    "no-memory": ([(SELECT | READ, 2, 0x10000), (READ, 2, BUFFER)], [ERROR, 0], b"MU"),
    "no-memory-at-the-end": ([(SELECT | READ, 3, 0xFFFF), (READ, 1, BUFFER)], [ERROR, 0], b"U"),
    "address-wraps": ([(SELECT | READ, 16, 0xFFFFFFFFFFFFFFF8)], [ERROR], b""),
    "rom": ([(SELECT | READ, 4, 0xFFFFF000)], [ERROR], b""),
}


@pytest.mark.parametrize(("steps", "controls", "data"), TRANSFERS.values(), ids=TRANSFERS)
def test_transfer(steps, controls, data):
    host = Host()
    host.memory.view(BUFFER, 64)[:] = b"\xaa" * 64
    assert [host.transfer(*step) for step in steps] == controls
    assert host.memory.read(BUFFER, 64) == data.ljust(64, b"\xaa")


def test_a_transfer_goes_over_the_border_of_two_regions():
    host = Host()
    assert host.transfer(0x19 << 16 | SELECT | READ, 100, 0x8000 - 40) == 0
    assert host.memory.read(0x8000 - 40, 40) + host.memory.read(0x8000, 60) == bytes(range(100))
    assert host.memory.read(0x8000 + 60, 1) == b"\0"
    assert host.told == [(0x8000 - 40, 40), (0x8000, 60), (DESCRIPTOR, 4)]


@pytest.mark.parametrize(
    ("paddr", "length", "copied", "mapped"),
    [
        (0x2000, 0x3000, 0, 0x3000),  # whole pages of the file, where they may lie
        (0x2000, 0x3123, 0x123, 0x3000),
        (0x2000, 0x9000, 0x2AF, 0x4000),  # zeros behind its end; what does not fit into the first region is read
        (0x2010, 0x3000, 0x3000, 0),
        (0x7000, 0x2000, 0, 0x2000),
        (0x2000, 0xFFF, 0xFFF, 0),
    ],
)
def test_a_file_is_mapped_where_it_can_be(tmp_path, paddr, length, copied, mapped):
    data = bytes(range(251)) * 17 * 4 + b"end"  # 4 pages and more: no two of them are the same
    path = tmp_path / "initrd"
    path.write_bytes(data)
    host, plain = Host({}), Host({0x12: data})
    image = FileImage(path)
    host.attach({0x12: image})
    for one in (host, plain):
        one.memory.view(0x1000, 0x7000)[:] = b"\xaa" * 0x7000
        assert one.transfer(0x12 << 16 | SELECT | READ, length, paddr) == 0
    assert (host.memory.copied, host.memory.mapped, plain.memory.mapped) == (copied, mapped, 0)
    for one in (host, plain):
        assert one.transfer(READ, 1, BUFFER - 1) == 0  # goes on behind it
    assert host.memory.read(0, 0x10000) == plain.memory.read(0, 0x10000)
    image.close()


def test_a_descriptor_outside_of_memory_tells_nobody():
    host = Host()
    host.start(0x20000)
    assert host.told == []
    assert host.bytes(4) == b"QEMU"


def test_an_item_that_cannot_be_read_is_an_error():
    class Broken(BytesImage):
        def read_into(self, *_):
            raise BootError("broken")

    memory = GuestMemory([LOW], bytes(4096))
    device = FwCfg({0: Broken(b"QEMU")}, memory)
    memory.view(DESCRIPTOR, 16)[:] = struct.pack(">IIQ", SELECT | READ, 4, BUFFER)
    device.dma_ports.write(4, 4, 0x00100000)
    assert memory.read(DESCRIPTOR, 4) == struct.pack(">I", ERROR)


# Writing.


def test_a_writeable_file_takes_what_fits():
    host = Host({})
    items = {0x20: FileContents(RecordedFile(8, b"abc", True)), 0x21: FileContents(RecordedFile(8, b"abc", False))}
    host.attach(items)
    host.memory.view(BUFFER, 8)[:] = b"12345678"

    def contents(key):
        host.select(key)
        return host.bytes(9)

    assert host.transfer(0x20 << 16 | SELECT | WRITE, 2) == 0
    assert contents(0x20) == b"12c\0\0\0\0\0\0"
    assert host.transfer(0x20 << 16 | SELECT | SKIP, 5) == 0
    assert host.transfer(WRITE, 3) == 0
    assert contents(0x20) == b"12c\0\x00123\0"
    for control, length, address in ((SELECT | WRITE, 9, BUFFER), (SELECT | WRITE, 2, 1 << 40)):
        assert host.transfer(0x20 << 16 | control, length, address) == ERROR
        assert contents(0x20) == b"12c\0\x00123\0"
    assert host.transfer(0x21 << 16 | SELECT | WRITE, 2) == ERROR
    assert host.transfer(READ, 1, BUFFER) == 0
    assert host.memory.read(BUFFER, 1) == b"c"
    assert contents(0x21) == b"abc\0\0\0\0\0\0"


# The directory.


def test_the_directory_to_the_byte():
    items = with_directory({b"etc/e820": BytesImage(bytes(300)), b"bootorder": BytesImage(b"x"), b"z" * 55: BytesImage(b"")})
    directory = items[0x19].read(0, items[0x19].size)
    assert directory == (
        bytes.fromhex("00000003")
        + (bytes.fromhex("00000001 0020 0000") + b"bootorder").ljust(64, b"\0")
        + (bytes.fromhex("0000012c 0021 0000") + b"etc/e820").ljust(64, b"\0")
        + (bytes.fromhex("00000000 0022 0000") + b"z" * 55).ljust(64, b"\0")
    )
    assert sorted(items) == [0x19, 0x20, 0x21, 0x22]
    assert (items[0x20].size, items[0x21].size, items[0x22].size) == (1, 300, 0)


def test_an_empty_directory():
    items = with_directory({})
    assert {key: item.read(0, item.size) for key, item in items.items()} == {0x19: bytes(4)}


def test_a_name_that_leaves_no_room_for_its_end_is_refused():
    with pytest.raises(BootError, match=r"^fw_cfg has no room for a file name of 56 bytes: 55 at most$"):
        with_directory({b"z" * 56: BytesImage(b"")})
