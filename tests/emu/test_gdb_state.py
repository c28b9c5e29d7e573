"""What the server for gdb tells of registers, memory, and the boot, and what it lets be written."""

import random
import xml.etree.ElementTree as ElementTree

import pytest
from debugging import ENTRY, EXIT_7, driven_boot, hello, kernel_of, kill
from pvhboot.emu.gdb.registers import described_registers, target_description
from pvhboot.emu.reasons import DEBUGGER
from pvhboot.shim.abi.x86 import RESET_VECTOR
from pvhboot.shim.blob import Blob
from pvhboot.shim.machines import BARE
from pvhboot.shim.stock import default_blob

BLOB = default_blob(BARE)
SPIN = b"\xeb\xfe"


def test_registers_all_and_one_and_written(engine_name):
    def script(client):
        hello(client)
        everything = client.ask(b"g")
        assert len(everything) == 2 * 4 * 16  # eax to gs
        assert everything[2 * 4 * 8 : 2 * 4 * 9] == b"f0ffffff"  # eip, linear
        assert everything[2 * 4 * 2 : 2 * 4 * 3] == client.ask(b"p2")  # edx
        assert client.ask(b"P3=78563412") == b"OK"
        assert client.ask(b"p3") == b"78563412"
        assert client.ask(b"G" + b"11223344" + everything[8:]) == b"OK"
        assert client.ask(b"p0") == b"11223344"
        assert client.ask(b"p3") == everything[24:32]
        assert client.ask(b"p10") == b"x" * 20  # st0 is not told
        kill(client)

    driven_boot(script, engine=engine_name)


def test_the_instruction_pointer_is_linear_and_so_it_is_written(engine_name):
    target = BLOB.symbols["real_mode"]

    def script(client):
        hello(client)
        assert client.ask(b"P8=" + target.to_bytes(4, "little").hex().encode()) == b"OK"
        assert client.read_ip() == target
        assert client.ask(b"P8=00001000").startswith(b"E.")  # CS does not reach there
        assert client.read_ip() == target
        client.run(b"c")
        kill(client)

    assert driven_boot(script, engine=engine_name).clean


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (b"P8=00", b"E16"),  # too short
        (b"P8=zzzzzzzz", b"E16"),
        (b"Pff=00000000", b"E16"),  # no such register
        (b"pff", b"E16"),
        (b"p", b"E16"),
        (b"P10=0000", b"E16"),
        (b"G00", b"E16"),
        (b"m", b"E16"),
        (b"m0", b"E16"),
        (b"m0,zz", b"E16"),
        (b"m 0,1", b"E16"),
        (b"me0000000,4", b"E0e"),
        (b"m3fffff0,20", b"E0e"),  # beyond the 64 MiB
        (b"M0,2:00", b"E16"),
        (b"M0,1:zz", b"E16"),
        (b"Mf0000000,1:00", b"E0e"),
        (b"M3fffffe,4:00000000", b"E0e"),
        (b"m-1,1", b"E16"),
        (b"p-1", b"E16"),
        (b"Z9,0,1", b"E16"),
        (b"Z0", b"E16"),
        (b"Z2,0,ffffffff", b"E16"),
        (b"vCont;x", b"E16"),
        (b"c1000", b"E16"),
        (b"qRcmd,zz", b"E16"),
        (b"qXfer:features:read:target.xml:zz,1", b"E16"),
        (b"qXfer:features:read:other.xml:0,10", b""),
        (b"qXfer:memory-map:read::0,10", b""),
        (b"qCRC:0,10", b""),
        (b"vFile:unlink:00", b""),
        (b"vFile:open:%s,0,0" % b"/etc/passwd".hex().encode(), b"F-1,2"),
        (b"vFile:open:zz,0,0", b"F-1,16"),
        (b"vFile:pread:7,10,0", b"F-1,9"),
        (b"vFile:pread:3,10", b"F-1,16"),
        (b"!", b""),
        (b"", b""),
        (b"vUnknown", b""),
        (bytes(range(128, 200)), b""),
    ],
)
def test_an_unknown_or_malformed_packet_has_an_answer_and_no_effect(packet, answer):
    def script(client):
        hello(client)
        assert client.ask(packet) == answer
        assert client.read_ip() == RESET_VECTOR
        assert "handoff" in client.run(b"c")[0]
        client.ask(b"D")

    assert driven_boot(script).ok


def test_memory_is_read_and_written_across_pages(engine_name):
    def script(client):
        hello(client)
        assert client.ask(b"m%x,3" % RESET_VECTOR) == BLOB.data[-16:-13].hex().encode()
        assert client.ask(b"Mffe,4:01020304") == b"OK"
        assert client.ask(b"Xffc,1:}\x03") == b"OK"
        assert client.ask(b"mffc,8") == b"23000102030400".ljust(16, b"0")
        assert client.ask(b"M%x,1:00" % RESET_VECTOR).startswith(b"E.")  # it is a ROM
        assert client.ask(b"m0,ffffffff").count(b"0") > 1000  # as much as there is room for
        kill(client)

    driven_boot(script, engine=engine_name)


def test_code_that_is_written_is_what_is_executed(engine_name):
    def script(client):
        hello(client)
        client.run(b"c")
        assert client.interrupt(b"c") == b"T02thread:1;"  # so that what is there has been translated
        assert client.ask(b"M%x,%x:%s" % (ENTRY, len(EXIT_7), EXIT_7.hex().encode())) == b"OK"
        assert "the guest left with 7" in client.run(b"c")[0]
        kill(client)

    assert driven_boot(script, engine=engine_name, kernel=kernel_of(SPIN + bytes(8))).run.stop.value == 7


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("help", "monitor io [N]   the last N accesses"),
        ("where", "0xfffffff0  reset_vector (reset.s:"),
        ("info", "real mode, CS based at 0xffff0000"),
        ("check", "not at the entry 0x100000: as if this were the handoff\ncheck: "),
        ("io", "no access to a device yet"),
        ("io 0", "monitor io 0: give a number of accesses above 0"),
        ("io many", "monitor io many: give a number"),
        ("where am i", "monitor where takes no argument"),
        ("nonsense", "no monitor command 'nonsense': there is check, io, where, info, help"),
        ("", "no monitor command ''"),
    ],
)
def test_monitor(command, words):
    def script(client):
        hello(client)
        said, answer = client.run(b"qRcmd," + command.encode().hex().encode())
        assert answer == b"OK"
        assert words in said
        kill(client)

    driven_boot(script)


def test_the_last_bytes_of_memory_are_an_instruction_too(engine_name):
    def script(client):
        hello(client)
        client.run(b"c")
        assert client.ask(b"P8=ffffff03") == b"OK"  # the last byte of 64 MiB
        said, _ = client.run(b"qRcmd," + b"where".hex().encode())
        assert said.startswith("0x3ffffff")
        assert said.endswith("\n00  (no instruction)  (32-bit)\n")
        kill(client)

    driven_boot(script, engine=engine_name, kernel=kernel_of(SPIN))


def test_monitor_io_tells_the_last_accesses():
    def script(client):
        hello(client)
        client.run(b"c")
        client.run(b"c")
        said, _ = client.run(b"qRcmd," + b"io 2".hex().encode())
        assert said == "     1  out   0x80 <- 0x07  post\n     2  out   0x501 <- 0x07  debug-exit\n"
        kill(client)

    driven_boot(script, kernel=kernel_of(bytes.fromhex("b007 e680") + EXIT_7))


@pytest.mark.parametrize(
    ("bits", "architecture", "general"), [(16, "i8086", "eax"), (32, "i386", "eax"), (64, "i386:x86-64", "rax")]
)
def test_the_description_is_what_is_packed(bits, architecture, general):
    root = ElementTree.fromstring(target_description(bits))
    assert root.findtext("architecture") == architecture
    described = [(int(element.get("regnum")), element.get("name"), int(element.get("bitsize"))) for element in root.iter("reg")]
    registers = described_registers(bits)
    assert described == [(number, register.name, register.bits) for number, register in enumerate(registers)]
    assert described[0][1] == general
    types = {element.get("id") for element in root.iter("flags")}
    assert {"i386_eflags", "cr0_bits", "cr4_bits", "efer_bits"} <= types


def test_the_description_follows_the_mode_when_it_is_read_anew():
    def script(client):
        hello(client)
        assert b"<architecture>i8086<" in client.ask(b"qXfer:features:read:target.xml:0,1000")
        client.run(b"c")
        assert b"<architecture>i386<" in client.ask(b"qXfer:features:read:target.xml:0,1000")
        rest = client.ask(b"qXfer:features:read:target.xml:20,10")
        assert rest == b"m" + target_description(32)[0x20:0x30]
        assert client.ask(b"qXfer:features:read:target.xml:10000,10") == b"l"
        kill(client)

    driven_boot(script)


def test_the_firmwares_elf_can_be_fetched():
    def script(client):
        assert b"qXfer:exec-file:read+" in hello(client)
        path = client.ask(b"qXfer:exec-file:read:1:0,100")[1:]
        assert client.ask(b"vFile:open:%s,0,0" % path.hex().encode()) == b"F3"
        size = int.from_bytes(_unescaped(client.ask(b"vFile:fstat:3"))[28:36])
        fetched = b""
        while part := _unescaped(client.ask(b"vFile:pread:3,1000,%x" % len(fetched))):
            assert len(part) <= 0x1000
            fetched += part
        assert len(fetched) == size
        assert fetched == BLOB.elf()
        assert client.ask(b"vFile:close:3") == b"F0"
        kill(client)

    driven_boot(script)


def _unescaped(answer):
    """The data of an answer of vFile."""
    _, _, data = answer.partition(b";")
    out, at = bytearray(), 0
    while at < len(data):
        escaped = data[at : at + 1] == b"}"
        at += escaped
        out.append(data[at] ^ 0x20 if escaped else data[at])
        at += 1
    return bytes(out)


def test_a_foreign_firmware_has_nothing_to_fetch():
    def script(client):
        assert b"exec-file" not in hello(client)
        assert client.ask(b"qXfer:exec-file:read:1:0,100") == b""
        assert client.ask(b"vFile:open:2f,0,0") == b""
        said, _ = client.run(b"qRcmd," + b"where".hex().encode())
        assert said.startswith("0xfffffff0  ROM+0xfff0\n")
        kill(client)

    driven_boot(script, blob=Blob(BLOB.data, {}, (), {}))


def test_hostile_packets_are_all_answered(engine_name):
    """Whatever stands behind the name of a packet that does not let the CPU go."""
    chance = random.Random(1)
    names = [b"g", b"G", b"p", b"P", b"m", b"M", b"X", b"Z", b"z", b"H", b"T", b"?", b"q", b"v", b"vCont", b"vCont;", b"qRcmd,"]
    names += [
        b"vFile:",
        b"vFile:open:",
        b"vFile:pread:3,",
        b"qXfer:",
        b"qXfer:features:read:target.xml:",
        b"qXfer:exec-file:read:",
    ]
    pieces = [
        b"0",
        b"1",
        b"ffffffffffffffff",
        b"fffffffffffffffff",
        b",",
        b":",
        b"=",
        b";",
        b"-",
        b"xx",
        b"\xff",
        b"7fff",
        b" ",
        b"*",
    ]

    def script(client):
        hello(client)
        for _ in range(400):
            packet = chance.choice(names) + b"".join(chance.choices(pieces, k=chance.randrange(7)))
            assert not client.run(packet)[1].startswith((b"T", b"W")) or packet.startswith(b"?"), packet
        for kind in range(5):
            for place in (b"0", b"ffffffffffffffff"):
                client.ask(b"Z%d,%s,ffff" % (kind, place))
        assert client.ask(b"m0,4") == b"00000000"
        client.run(b"s")
        kill(client)

    assert driven_boot(script, engine=engine_name).run.stop.reason == DEBUGGER
