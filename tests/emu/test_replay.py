"""Replays: a transcript of any engine gives the same handoff again, and what is not in it is told."""

import re
from typing import NamedTuple

import pytest
from host import qemu_problem
from plain import QBOOT
from pvhboot.emu import replay as replay_module
from pvhboot.emu.board import Board
from pvhboot.emu.bus import Access
from pvhboot.emu.comparison import COMPARED
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.replay import STRICT, TOLERANT, Replay, ReplayBus
from pvhboot.emu.session import boot, boot_board, get_engine
from pvhboot.emu.transcriber import Transcriber, transcribe_qemu
from pvhboot.emu.transcript import Exchange, ModulePiece, Piece, Subject, Transcript, parse_transcript
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import GuestMemory, ShadowPart
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import MACHINES, MIB, MICROVM, Span
from pvhboot.shim.stock import default_blob, default_guest

MEMORY = 64 * MIB
INITRD = b"initrd" * 2000
SUBJECT = Subject("unicorn", "00" * 32, "microvm", MEMORY, 0x100000, None, (), (), (), False, False)


# One access at a time.


class Bench(NamedTuple):
    """A bus that replays exchanges, its memory, the replay, and the words for each divergence."""

    bus: ReplayBus
    memory: GuestMemory
    replay: Replay
    said: list[str]


def bench(*exchanges, order=STRICT):
    memory = GuestMemory([Span("RAM", 0, 0x20000)], bytes(4096))
    replay, said = Replay(Transcript(SUBJECT, "handoff", exchanges), order), []
    return Bench(ReplayBus(replay, "ones", memory, [BytesImage(b"module")], said.append), memory, replay, said)


def load(address, value, size=1):
    return Exchange(Access("in", address, size, value, "box"))


def store(address, value, size=1, fetched=(), stored=()):
    return Exchange(Access("out", address, size, value, "box"), fetched, stored)


def test_what_the_transcript_has_is_answered():
    bus, _, replay, said = bench(
        load(1, 0x51),
        store(2, 7),
        Exchange(Access("read", 0xFEE00000, 4, 9, "")),
        Exchange(Access("write", 0xFEE00000, 4, 3, "")),
    )
    assert bus.port_read(1, 1) == 0x51
    bus.port_write(2, 1, 7)
    assert bus.memory_read(0xFEE00000, 4) == 9
    bus.memory_write(0xFEE00000, 4, 3)
    assert (said, replay.report().made, replay.report().ok) == ([], 4, True)
    assert bus.log == [exchange.access for exchange in replay.transcript.exchanges]


FOUND = "the transcript has one that writes 0x7 (1 byte) to port 0x2 (box)"
STRAY = {
    "another-value": (lambda bus: bus.port_write(2, 1, 8), "writes 0x8 (1 byte) to port 0x2, the transcript has 0x7"),
    "another-size": (lambda bus: bus.port_write(2, 2, 7), f"writes 0x7 (2 bytes) to port 0x2, {FOUND}"),
    "another-port": (lambda bus: bus.port_write(3, 1, 7), f"writes 0x7 (1 byte) to port 0x3, {FOUND}"),
    "a-load": (lambda bus: bus.port_read(2, 1), f"reads 1 byte from port 0x2, {FOUND}"),
    "memory": (lambda bus: bus.memory_read(0x80000000, 4), f"reads 4 bytes from 0x80000000, {FOUND}"),
}


@pytest.mark.parametrize(("stray", "words"), STRAY.values(), ids=STRAY.keys())
def test_strictly_what_is_not_the_next_access_is_told(stray, words):
    bus, _, replay, said = bench(store(2, 7))
    stray(bus)
    assert said == [f"access 1: the firmware {words}"]
    assert not replay.report().ok
    assert replay.report().lines() == ["replay (strict): 0 of the transcript's 1 accesses were made"]


def test_strictly_the_end_is_told_and_what_was_not_made():
    bus, _, replay, said = bench(load(1, 5), load(1, 6))
    bus.port_read(1, 1)
    assert replay.report().lines()[1:] == ["  not made: access 2, which reads 1 byte from port 0x1"]
    assert not replay.report().ok
    bus.port_read(1, 1)
    assert replay.report().ok
    assert bus.port_read(1, 1) == 0xFF
    assert said == ["access 3: the firmware reads 1 byte from port 0x1, the transcript has ended"]


def test_an_access_that_qemu_has_split_is_one():
    bus, _, replay, said = bench(load(1, 5), load(2, 6), load(3, 7), load(4, 8), load(1, 9))
    assert bus.port_read(1, 4) == 0x08070605
    assert bus.port_read(1, 1) == 9
    assert (said, replay.report().ok) == ([], True)


def test_what_the_last_part_of_a_split_access_hides_is_hidden():
    """Shadow RAM of which the first part has shown a page, and the second one none."""
    page = ShadowPart(0xC0000, 0xC1000, False)
    parts = [Exchange(Access("out", 0xCFC + at, 1, 0, ""), shadow=shadow) for at, shadow in enumerate(((page,), ()))]
    memory = GuestMemory([Span("RAM", 0, 0x20000)], bytes(4096), shadow=Span("shadow", 0xC0000, 0x100000))
    replay = Replay(Transcript(SUBJECT, "handoff", tuple(parts)))
    ReplayBus(replay, "ones", memory, [], pytest.fail).port_write(0xCFC, 2, 0)
    assert (memory.shown, replay.report().ok) == ((), True)


@pytest.mark.parametrize("order", [STRICT, TOLERANT])
def test_memory_is_written_at_the_access_that_caused_it(order):
    first = store(0x518, 1, 4, (Piece(0x1000, b"ask"),), (Piece(0x2000, b"told"), ModulePiece(0x3000, 0)))
    bus, memory, _, said = bench(load(1, 5), first, order=order)
    told = []
    memory.listeners.append(lambda paddr, size: told.append((paddr, size)))
    memory.view(0x1000, 3)[:] = b"ask"
    bus.port_read(1, 1)
    assert told == []
    bus.port_write(0x518, 4, 1)
    assert (memory.read(0x2000, 4), memory.read(0x3000, 6)) == (b"told", b"module")
    assert told == [(0x2000, 4), (0x3000, 6)]
    assert said == []


def test_what_a_device_reads_in_memory_is_compared():
    asks = store(0x518, 1, 4, (Piece(0x1000, bytes.fromhex("0019000a000000400000000000003000")),))
    bus, memory, _, said = bench(asks)
    memory.view(0x1000, 16)[:] = bytes.fromhex("000b000a000000040000000000006048")
    bus.port_write(0x518, 4, 1)
    assert said == [
        "access 1: the firmware writes 0x1 (4 bytes) to port 0x518, for which the descriptor at 0x1000 says: "
        "4 bytes of item 0xb to 0x6048; in the transcript: 64 bytes of item 0x19 to 0x3000"
    ]


def test_a_store_to_where_nothing_can_be_stored_ends_the_run():
    bus, _, replay, said = bench(store(2, 7, stored=(Piece(0x30000, b"x"),)))
    bus.port_write(2, 1, 7)
    assert re.fullmatch(
        r"the firmware writes .* the transcript has what cannot be stored: no memory at 0x30000-0x30001", said[0]
    )
    assert not replay.report().ok


# Tolerantly.


def test_the_order_between_devices_does_not_matter():
    bus, _, replay, said = bench(load(1, 5), store(2, 7), load(3, 6), load(1, 8), order=TOLERANT)
    bus.port_write(2, 1, 7)
    assert [bus.port_read(port, 1) for port in (3, 1, 1)] == [6, 5, 8]
    assert (said, replay.report().left, replay.report().ok) == ([], (), True)


def test_the_last_answer_is_given_again():
    bus, _, replay, _ = bench(load(1, 5), load(1, 6), order=TOLERANT)
    assert [bus.port_read(1, 1) for _ in range(4)] == [5, 6, 6, 6]
    assert replay.report().ok


def test_what_has_no_answer_is_told():
    bus, _, replay, said = bench(load(1, 5), order=TOLERANT)
    bus.port_write(0x402, 1, 0x41)
    assert replay.report().ok
    assert bus.port_read(2, 2) == 0xFFFF
    assert said == []
    assert replay.report().lines() == [
        "replay (tolerant): 0 of the transcript's 1 accesses were made",
        "  without an answer: the firmware writes 0x41 (1 byte) to port 0x402",
        "  without an answer: the firmware reads 2 bytes from port 0x2",
    ]
    assert not replay.report().ok


def test_each_selection_has_its_own_answers():
    """Of an item of fw_cfg, of a register of CMOS or of PCI."""
    recorded = (
        *(store(0x510, 5, 2), load(0x511, 0x51), load(0x511, 0x52)),
        *(store(0x510, 6, 2), load(0x511, 0x61)),
        *(store(0x510, 5, 2), load(0x511, 0x53)),
    )
    bus, _, replay, _ = bench(*recorded, order=TOLERANT)

    def item(key, size):
        bus.port_write(0x510, 2, key)
        return [bus.port_read(0x511, 1) for _ in range(size)]

    assert item(6, 1) == [0x61]
    assert item(5, 3) == [0x51, 0x52, 0x52]
    assert item(5, 1) == [0x53]
    assert item(5, 1) == [0x53]
    assert replay.report().ok
    assert item(7, 1) == [0xFF]
    assert not replay.report().ok


def test_of_stores_of_one_value_the_one_is_taken_that_asks_for_the_same():
    asks = [store(0x518, 1, 4, (Piece(0x1000, word),), (Piece(0x2000, word.upper()),)) for word in (b"one", b"two")]
    bus, memory, replay, _ = bench(*asks, order=TOLERANT)
    got = []
    for word in (b"two", b"one", b"two"):
        memory.view(0x1000, 3)[:] = word
        bus.port_write(0x518, 4, 1)
        got.append(memory.read(0x2000, 3))
    assert got == [b"TWO", b"ONE", b"TWO"]
    memory.view(0x1000, 3)[:] = b"six"
    bus.port_write(0x518, 4, 1)
    assert len(replay.unanswered) == 1


def test_of_many_stores_each_is_looked_at_once(monkeypatch):
    """A firmware that prints much."""
    looks = []
    monkeypatch.setattr(replay_module, "_fetched_difference", lambda exchange, _memory: looks.append(exchange))
    bus, _, replay, _ = bench(*[store(0x402, 0x41)] * 500, order=TOLERANT)
    for _ in range(600):
        bus.port_write(0x402, 1, 0x41)
    assert (len(looks), replay.report().left) == (600, ())


def test_an_order_that_does_not_exist_is_told():
    with pytest.raises(BootError, match="no order named 'lax'; there is: strict, tolerant"):
        Replay(Transcript(SUBJECT, "handoff", ()), "lax")


# Whole boots.


def firmware_of(machine, name):
    if name == "pvhboot":
        return default_blob(MACHINES[machine])
    if not QBOOT.is_file():
        pytest.skip(f"no {QBOOT}: Debian's package qemu-system-data has it")
    return Blob(QBOOT.read_bytes(), {}, (), {})


@pytest.fixture
def initrd(tmp_path):
    path = tmp_path / "initrd"
    path.write_bytes(INITRD)
    return str(path)


@pytest.fixture
def kernel():
    with Kernel.from_bytes(default_guest(64), "guest") as opened:
        yield opened


def recorded(plan, blob, engine):
    """A boot up to the handoff, and its transcript."""
    if engine.name == "qemu":
        outcome = boot(plan, blob, engine, Until("handoff"), Limits(seconds=30))
        return outcome, transcribe_qemu(outcome, engine.trace)
    transcriber = Transcriber()
    outcome = boot(plan, blob, engine, Until("handoff"), Limits(seconds=30), watchers=[transcriber])
    return outcome, transcriber.transcript(outcome)


@pytest.mark.parametrize("recorder", ["unicorn", "kvm", "tcg", "qemu-kvm"])
@pytest.mark.parametrize(
    ("machine", "firmware"),
    [("microvm", "pvhboot"), ("q35", "pvhboot"), ("microvm", "qboot"), ("microvm-acpi", "qboot"), ("pc", "qboot")],
)
def test_the_handoff_of_a_replay_is_the_recorded_one(machine, firmware, recorder, kernel, initrd):
    engine, accelerator = {"tcg": ("qemu", "tcg"), "qemu-kvm": ("qemu", "kvm")}.get(recorder, (recorder, None))
    problem = qemu_problem(accelerator or recorder) if recorder != "unicorn" else None
    if problem:
        pytest.skip(problem)
    blob, spec = firmware_of(machine, firmware), MACHINES[machine]
    recording = get_engine(engine, accelerator=accelerator, tracing=True)
    reserved = recording.host_reserved(spec, MEMORY)
    modules = [Module(initrd)]
    plan = make_plan(spec, blob.data, kernel, memory=MEMORY, cmdline="a b", modules=modules, host_reserved=reserved)
    outcome, transcript = recorded(plan, blob, recording)
    # As the file has it, and on both engines that replay.
    transcript = parse_transcript(transcript.to_jsonl().encode())
    for order in (STRICT, TOLERANT):
        replay = Replay(transcript, order)
        again = boot_board(Board(plan, replay=replay), blob, get_engine("unicorn"), Until("handoff"), Limits(seconds=30))
        assert again.run.stop.reason == "handoff"
        assert replay.report().ok
        assert not replay.report().left
        for what, look in COMPARED.items():
            assert look(again) == look(outcome), what
        assert violated(again) - {"cpu.mtrr"} == violated(outcome) - {"cpu.mtrr"}  # which QEMU does not show


def violated(outcome):
    return {finding.clause for finding in outcome.findings if finding.status == "violated"}


def test_qemu_and_unicorn_see_the_same_accesses(kernel, initrd):
    """qboot reads of how many files fw_cfg has, which are three more in QEMU: option ROM, boot order, device tree."""
    if problem := qemu_problem():
        pytest.skip(problem)
    for firmware, fields, count in (("pvhboot", 4, 12), ("qboot", 3, 80)):
        blob = firmware_of("microvm", firmware)
        plan = make_plan(MICROVM, blob.data, kernel, memory=MEMORY, cmdline="a b", modules=[Module(initrd)])
        logs = [
            [exchange.access[:fields] for exchange in recorded(plan, blob, engine)[1].exchanges]
            for engine in (get_engine("unicorn"), get_engine("qemu", tracing=True))
        ]
        assert logs[0] == logs[1]
        assert len(logs[0]) == count


def test_kvm_replays_too(kernel, initrd, engine_name):
    blob = default_blob(MACHINES["q35"])
    plan = make_plan(MACHINES["q35"], blob.data, kernel, memory=MEMORY, modules=[Module(initrd)])
    outcome, transcript = recorded(plan, blob, get_engine("unicorn"))
    replay = Replay(transcript)
    again = boot_board(Board(plan, replay=replay), blob, get_engine(engine_name), Until("handoff"), Limits(seconds=30))
    assert again.ok
    assert replay.report().ok
    assert again.accesses == outcome.accesses
    assert again.memory.read(0, 0xA0000) == outcome.memory.read(0, 0xA0000)
    assert again.memory.read(plan.modules[0].paddr, len(INITRD)) == INITRD


def test_without_dma_every_byte_is_replayed(kernel, initrd):
    if problem := qemu_problem():
        pytest.skip(problem)
    blob = default_blob(MICROVM)
    plan = make_plan(MICROVM, blob.data, kernel, memory=MEMORY, modules=[Module(initrd)], dma=False)
    outcome, transcript = recorded(plan, blob, get_engine("qemu", tracing=True))
    assert len(transcript.exchanges) > len(INITRD)
    replay = Replay(transcript)
    again = boot_board(Board(plan, replay=replay), blob, get_engine("unicorn"), Until("handoff"), Limits(seconds=60))
    assert (again.ok, replay.report().ok, again.tables) == (True, True, outcome.tables)
    assert again.memory.read(plan.modules[0].paddr, len(INITRD)) == INITRD


def test_another_firmware_is_held_to_the_transcript(kernel, initrd):
    """One that asks for the initrd at another address than the recorded one: no access is another, only its descriptor."""
    blob = default_blob(MICROVM)
    plan = make_plan(MICROVM, blob.data, kernel, memory=MEMORY, modules=[Module(initrd)])
    _, transcript = recorded(plan, blob, get_engine("unicorn"))
    old = "    call ebp\n    mov edi, MODLIST_PADDR\n"
    source = asm_source("fw_cfg_kernel.s")
    assert source.count(old) == 1
    other = build(MICROVM, sources={"fw_cfg_kernel.s": source.replace(old, "    add edi, 0x1000\n" + old)})
    board = Board(plan._replace(rom=other.data), replay=Replay(transcript))
    outcome = boot_board(board, other, get_engine("unicorn"), Until("handoff"), Limits())
    place = plan.modules[0].paddr
    assert outcome.run.stop.reason == "diverged"
    assert f"bytes of item 0x12 to {place + 0x1000:#x}; in the transcript: {len(INITRD)} bytes of item 0x12 to {place:#x}" in (
        outcome.run.stop.detail
    )
    assert str(other.locate(outcome.run.stop.rip)).partition("+")[0] == "fw_cfg_read_dma"


def test_a_replay_is_recorded_as_what_it_replays(kernel, initrd):
    """With what devices have read in memory: it holds another firmware to as much."""
    blob = default_blob(MICROVM)
    plan = make_plan(MICROVM, blob.data, kernel, memory=MEMORY, modules=[Module(initrd)])
    _, transcript = recorded(plan, blob, get_engine("unicorn"))
    for order in (STRICT, TOLERANT):
        transcriber, board = Transcriber(), Board(plan, replay=Replay(transcript, order))
        outcome = boot_board(board, blob, get_engine("unicorn"), Until("handoff"), Limits(), [transcriber])
        assert transcriber.transcript(outcome) == transcript


def test_a_panic_is_replayed(kernel):
    blob = default_blob(MICROVM)
    plan = make_plan(MICROVM, blob.data, kernel, memory=MEMORY)
    transcriber = Transcriber()
    board = Board(plan, fw_cfg_items={})
    outcome = boot_board(board, blob, get_engine("unicorn"), Until("handoff"), Limits(), [transcriber])
    assert outcome.debug_console
    replay = Replay(transcriber.transcript(outcome))
    again = boot_board(Board(plan, replay=replay), blob, get_engine("unicorn"), Until("handoff"), Limits())
    assert (again.run.stop, again.debug_console) == (outcome.run.stop, outcome.debug_console)
    assert replay.report().ok
