"""Transcripts: the file's form, what is said of a wrong one, and what is written down of a boot."""

import json
import re
import tempfile

import pytest
from pvhboot.emu import transcript as transcript_module
from pvhboot.emu.bus import Access
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.qemu.tracing import parse_trace, qtest_listener
from pvhboot.emu.session import boot, get_engine
from pvhboot.emu.transcriber import Transcriber
from pvhboot.emu.transcript import (
    Exchange,
    ModuleDigest,
    ModulePiece,
    Piece,
    Subject,
    Transcript,
    parse_transcript,
)
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import ShadowPart
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.fw_cfg import FW_CFG_DMA, FwCfgDmaAccess
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MICROVM, Q35
from pvhboot.shim.stock import default_blob, default_guest

INITRD = bytes(range(256)) * 40
SUBJECT = Subject(
    "kvm",
    "ab" * 32,
    "q35",
    64 << 20,
    0x100000,
    "caf\udce9",
    (ModuleDigest(6, "cd" * 32),),
    ((0x200000, 0x201000),),
    (E820Entry(0xFD00000000, 0x300000000, 2),),
    True,
    False,
)
ALL = Transcript(
    SUBJECT,
    "handoff",
    (
        Exchange(Access("in", 0x511, 1, 0x51, "fw_cfg")),
        Exchange(Access("read", 0xFEE00030, 4, 0xFFFFFFFF, "")),
        Exchange(
            Access("out", 0x518, 4, 0x20100000, "fw_cfg-dma"),
            (Piece(0x1020, bytes(16)),),
            (Piece(0x3000, b"some text" + bytes(5000)), ModulePiece(0x2000000, 0), Piece(0x1020, bytes(4))),
        ),
        Exchange(Access("write", 0xB0000000, 8, 1, "ecam"), shadow=(ShadowPart(0xF0000, 0x100000, True),)),
        Exchange(Access("out", 0xCFC, 1, 0, "pci"), shadow=()),
    ),
)


def test_a_transcript_comes_back_as_it_was():
    text = ALL.to_jsonl()
    assert parse_transcript(text.encode()) == ALL
    assert parse_transcript(text.encode()).to_jsonl() == text
    assert len(text) < 1500  # 5000 zeros are compressed
    assert [json.loads(line) for line in text.splitlines()[1:3]] == [
        {"in": "0x511", "size": 1, "value": "0x51", "device": "fw_cfg"},
        {"read": "0xfee00030", "size": 4, "value": "0xffffffff"},
    ]


def text_with(number=None, **fields):
    """ALL's text with other fields in a line (None: the first); of the value None, none."""
    lines = [json.loads(line) for line in ALL.to_jsonl().splitlines()]
    line = lines[0 if number is None else number]
    for name, value in fields.items():
        line[name] = value
        if value is None:
            del line[name]
    return "\n".join(map(json.dumps, lines))


def stored(**piece):
    return text_with(3, stored=[{"paddr": "0x3000", **piece}])


PACKED = json.loads(ALL.to_jsonl().splitlines()[3])["stored"][0]["gzip"]
FOREIGN = "not a transcript: `pvhboot boot --record-io FILE` writes one"
WRONG = {
    "empty": ("", FOREIGN),
    "binary": ("\0\1\2", FOREIGN),
    "a-list": ("[]", FOREIGN),
    "a-trace": ('{"pvhboot_trace": 1}', FOREIGN),
    "nested": ("[" * 100_000, FOREIGN),
    "a-recording": ('{"version": 1}', FOREIGN),
    "version": (text_with(transcript=2), "a transcript of version 2: this pvhboot reads version 1"),
    "machine": (text_with(machine="vax"), "a transcript of the machine 'vax'; there is: bare, .*"),
    "memory": (text_with(memory=0), "the transcript has the memory 0: .*"),
    "entry": (text_with(entry=5), "the transcript has no entry, or one that is no str"),
    "cmdline": (text_with(cmdline=5), "the transcript has a cmdline that is no text"),
    "modules": (text_with(modules=[{}]), "the transcript has no size, or one that is no int"),
    "reserved": (text_with(reserved=[["0x1"]]), "the transcript's reserved is not two addresses"),
    "host-reserved": (text_with(host_reserved=[1]), "the transcript's host_reserved is not two addresses and a number"),
    "host-reserved-type": (
        text_with(host_reserved=[["0x0", "0x1000", -1]]),
        "the transcript's host_reserved has the type -1: 0 to 4294967295 is possible",
    ),
    "host-reserved-type-too-large": (text_with(host_reserved=[["0x0", "0x1000", 1 << 32]]), ".*has the type 4294967296: .*"),
    "end": (text_with(end=None), "the transcript has no end, or one that is no str"),
    "truncated": (
        "\n".join(ALL.to_jsonl().splitlines()[:-1]),
        "the transcript has 5 accesses by its first line, and 4 lines of them",
    ),
    "cut-line": (ALL.to_jsonl()[:-9], r"access 5: not JSON \(.*\)"),
    "no-kind": (text_with(1, **{"in": None}), "access 1 is not one of in, out, read, write"),
    "two-kinds": (text_with(1, out="0x1"), "access 1 is not one of in, out, read, write"),
    "size": (text_with(1, size=3), "access 1 has 3 bytes and the value 0x51"),
    "size-0": (text_with(1, size=0), "access 1 has the size 0: 1 to 8 is possible"),
    "value-too-large": (text_with(1, value="0x100"), "access 1 has 1 bytes and the value 0x100"),
    "value-decimal": (text_with(1, value="12"), r"value of access 1: '12' is no number of 64 bits in hexadecimal \(0x…\)"),
    "value-negative": (text_with(1, value="0x-1"), "value of access 1: '0x-1' is no number .*"),
    "address-too-large": (text_with(2, read=hex(1 << 64)), "read of access 2: .* is no number .*"),
    "piece-no-object": (text_with(3, stored=[1]), "stored of access 3 has no paddr, .*"),
    "piece-hex": (stored(hex="0g"), "stored of access 3: not bytes in hexadecimal or base64"),
    "piece-base64": (stored(gzip="?", size=1), "stored of access 3: not bytes in hexadecimal or base64"),
    "piece-other-codec": (stored(gzip="AAAA", size=1), "stored of access 3: not compressed by gzip"),
    "piece-corrupt": (stored(gzip=PACKED[:24], size=5009), ".*gzip.*"),
    "piece-size-less": (stored(gzip=PACKED, size=5008), "stored of access 3 has more bytes than its size 5008"),
    "piece-size-more": (stored(gzip=PACKED, size=5010), "stored of access 3 has fewer bytes than its size 5010"),
    "piece-size-absurd": (stored(gzip=PACKED, size=1 << 40), "stored of access 3 has the size 1099511627776: .*"),
    "piece-module": (stored(module=1), "stored of access 3 has the module 1: 0 to 0 is possible"),
    "fetched-module": (text_with(3, fetched=[{"paddr": "0x0", "module": 0}]), "fetched of access 3 is a module, .*"),
    "shadow-outside": (
        text_with(4, shadow=[["0xb0000", "0xd0000", False]]),
        "the shadow of access 4 has a part 0xb0000-0xd0000: there is RAM in pages from 0xc0000 on",
    ),
    "shadow-twice": (text_with(4, shadow=[["0xc0000", "0xd0000", False]] * 2), ".*RAM in pages from 0xd0000 on"),
    "shadow-within-a-page": (text_with(4, shadow=[["0xc0000", "0xc0001", False]]), ".*RAM in pages from 0xc0000 on"),
    "shadow-words": (text_with(4, shadow=[["0xc0000", "0xd0000", "no"]]), "the shadow of access 4 is not two addresses .*"),
    "shadow-elsewhere": (
        text_with(machine="microvm"),
        "the transcript has shadow RAM, which the machine microvm does not have",
    ),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_transcript_is_told(text, words):
    with pytest.raises(BootError) as caught:
        parse_transcript(text.encode())
    assert re.fullmatch(words, str(caught.value)), caught.value


def test_a_small_file_cannot_take_all_memory(monkeypatch):
    """Of accesses that each move what one may."""
    monkeypatch.setattr(transcript_module, "UNPACKED_MAX", 9000)
    assert parse_transcript(ALL.to_jsonl().encode()) == ALL  # 5029 bytes
    twice = ALL._replace(exchanges=ALL.exchanges * 2)
    with pytest.raises(BootError, match=r"the transcript has more than .* of memory: too much to replay"):
        parse_transcript(twice.to_jsonl().encode())


# What is written down of a boot.


def transcript_of(spec, initrd, engine="unicorn", memory=64 << 20):
    blob = default_blob(spec)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(spec, blob.data, kernel, memory=memory, cmdline="console", modules=[Module(initrd)])
        transcriber = Transcriber()
        outcome = boot(plan, blob, get_engine(engine), Until("exit"), Limits(), watchers=[transcriber])
        assert outcome.ok
        return transcriber.transcript(outcome), outcome


@pytest.fixture
def initrd(tmp_path):
    path = tmp_path / "initrd"
    path.write_bytes(INITRD)
    return str(path)


def test_it_has_what_devices_read_and_wrote_in_memory_and_ends_at_the_handoff(initrd, engine_name):
    transcript, outcome = transcript_of(MICROVM, initrd, engine_name)
    assert transcript.end == "handoff"
    assert len(transcript.exchanges) == 12 < len(outcome.accesses)  # the guest prints
    assert [exchange.access for exchange in transcript.exchanges] == list(outcome.accesses[:12])
    last = next(each for each in transcript.exchanges if any(isinstance(piece, ModulePiece) for piece in each.stored))
    (descriptor,) = last.fetched
    place = outcome.plan.modules[0].paddr
    assert FW_CFG_DMA.unpack(descriptor.data) == FwCfgDmaAccess(0x12 << 16 | 8 | 2, len(INITRD), place)
    assert last.stored == (ModulePiece(place, 0), Piece(descriptor.paddr, bytes(4)))
    (cmdline,) = (piece for each in transcript.exchanges for piece in each.stored if piece.paddr == 0x20000)
    assert cmdline.data == b"console\0"
    assert parse_transcript(transcript.to_jsonl().encode()) == transcript


def test_an_initrd_is_named_not_copied(tmp_path):
    """Also one that the device moves in several pieces."""
    path = tmp_path / "initrd"
    path.write_bytes(INITRD * 300)
    transcript, _ = transcript_of(MICROVM, str(path))
    assert transcript.subject.modules[0].size == 3 * 1024 * 1000
    assert [piece.module for each in transcript.exchanges for piece in each.stored if isinstance(piece, ModulePiece)] == [0]
    assert len(transcript.to_jsonl()) < 5000


def test_it_has_what_the_chipset_makes_of_memory(initrd):
    transcript, _ = transcript_of(Q35, initrd)
    shown = [exchange.shadow for exchange in transcript.exchanges if exchange.shadow is not None]
    assert shown[-1] == (ShadowPart(0xC0000, 0x100000, False),)


def test_a_run_without_a_handoff_has_one_too():
    blob = default_blob(MICROVM)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(MICROVM, blob.data, kernel, memory=64 << 20)
        transcriber = Transcriber()
        outcome = boot(plan, blob, get_engine("unicorn"), Until("handoff"), Limits(exits=5), watchers=[transcriber])
        transcript = transcriber.transcript(outcome)
    assert (transcript.end, len(transcript.exchanges)) == ("limit", 5)


# QEMU's trace.


def test_a_temporary_directory_with_too_long_a_name_for_a_socket_is_told(tmp_path, monkeypatch):
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with (
        pytest.raises(BootError, match=r"QEMU's socket cannot be made in .* \(TMPDIR\): AF_UNIX path too long"),
        qtest_listener(),
    ):
        pass
    assert not list(folder.iterdir())


def test_a_trace_is_read_with_other_lines_between():
    lines = [
        "CPU Reset (CPU 0)\n",
        "memory_region_ops_write cpu -1 mr 0x55 addr 0x70 value 0x0 size 1 name 'rtc'\n",
        "memory_region_ops_write cpu 0 mr 0x55 addr 0xcf8 value 0x80000000 size 4 name 'pci-conf-idx'\n",
        "1234@1700000000.123456:memory_region_ops_read cpu 1 mr 0x55 addr 0xcfc value 0xffffffffffffffff size 2 name 'io'\n",
        "memory_region_ops_read cpu 0 mr 0x55 addr 0xfee00030 value 0x14 size 4 name 'apic-msi'\n",
        "memory_region_ops_write cpu 0 mr 0x55 addr 0x518 value 0x1020 size 4 name 'fwcfg.dma'\n",
        "memory_region_ops_read cpu 0 mr 0x55 addr",
    ]
    assert parse_trace(lines) == [
        Access("out", 0xCF8, 4, 0x80000000, "pci-conf-idx"),
        Access("in", 0xCFC, 2, 0xFFFF, "io"),
        Access("read", 0xFEE00030, 4, 0x14, "apic-msi"),
        Access("out", 0x518, 4, 0x20100000, "fwcfg.dma"),  # as the CPU stores it
    ]
