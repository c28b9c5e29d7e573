"""Boots that go on behind the last step, or never come to the kernel: what the page tells of them."""

import pytest
from pvhboot.emu.bus import KINDS
from pvhboot.emu.page.render import packed
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MICROVM
from reports import report
from traced import flat_guest

_PHASE = "    mov eax, SEL_DATA32\n"


def broken(instructions: str):
    """The firmware of `bare` with instructions where its 32-bit code begins."""
    text = asm_source("flat32.s")
    assert text.count(_PHASE) == 1
    return build(BARE, sources={"flat32.s": text.replace(_PHASE, instructions + _PHASE)})


def test_what_comes_behind_the_last_step_is_told_in_short(engine_name):
    told, data = report(MICROVM, engine=engine_name, until="exit")
    outcome, beyond = told.outcome, data["beyond"]
    assert "\n".join(line for _, line in beyond["console"]) == outcome.console.decode().replace("\r\n", "\n").rstrip("\n")
    told_before = sum(times_of(data, row) for row, kind in enumerate(kinds_of(data)) if kind in KINDS)
    accesses = [event for event in beyond["events"] if event[1] == "access"]
    assert told_before + sum(count for *_, count in accesses) == sum(outcome.run.counts.get(kind, 0) for kind in KINDS)
    assert len(accesses) < 20
    assert beyond["events"][-1][1:] == ["end", "exit: the guest left with 0", 1]
    assert beyond["left_out"] == 0
    assert not beyond["clock"]
    assert [name for name, *_ in data["marks"]] == ["first-instruction", "protected-mode", "handoff", "console"]
    assert data["end"] == {"words": "exit: the guest left with 0", "place": "", "asked": True, "reason": "exit"}


def kinds_of(data):
    return [data["effect_kinds"][kind] for kind in data["effects"]["kind"]]


def times_of(data, row):
    return data["effects"]["more"].get(str(row), [1])[0]


def test_a_run_to_the_handoff_has_nothing_behind_it():
    data = report(BARE).data
    assert data["beyond"] is None
    assert data["marks"][-1] == ["handoff", data["handoff"], None, ""]


def test_of_many_events_the_first_are_told(monkeypatch):
    monkeypatch.setattr("pvhboot.emu.page.beyond._EVENTS", 10)
    code = "    mov ecx, 50\n1:  in al, 0x40\n    in al, 0x70\n    loop 1b\n"
    beyond = report(BARE, kernel=flat_guest(code.replace("1b", "again").replace("1:", "again:")), until="exit").data["beyond"]
    assert len(beyond["events"]) == 11
    assert beyond["left_out"] > 50


ENDS = {
    "a fault": ("    ud2\n", "fault", "#UD"),
    "a halt": ("    cli\n    hlt\n", "halt", "interrupts off"),
    "a load of a selector beyond the GDT": ("    mov ax, 0x48\n    mov ds, ax\n", "fault", "#GP"),
    "paging without tables": ("    mov eax, cr0\n    or eax, 0x80000000\n    mov cr0, eax\n", "fault", "#PF"),
}


@pytest.mark.parametrize(("instructions", "reason", "words"), ENDS.values(), ids=ENDS)
def test_a_firmware_that_never_comes_to_the_kernel(instructions, reason, words):
    told, data = report(BARE, blob=broken(instructions), until="exit")
    assert not data["ok"]
    assert data["beyond"] is None
    assert data["marks"][-1][0] == "protected-mode"
    assert data["handoff"] is None
    assert data["end"]["reason"] == reason
    assert words in data["verdict"]
    assert data["findings"] == []
    assert data["causes"][0]["title"]
    assert len(data["steps"]) == len(told.recorded.records)
    assert not data["cut"]
    assert "flat32.s" in data["end"]["place"] or reason == "fault"


LOOPS = {
    "a loop": "again:\n    jmp again\n",
    "a loop that waits for a port": "again:\n    in al, 0x64\n    jmp again\n",
    "nothing but nops": "    mov eax, 0x200000\n    mov dword ptr [eax], 0\n    jmp eax\n",
}


@pytest.mark.parametrize("instructions", LOOPS.values(), ids=LOOPS)
def test_of_a_firmware_that_goes_on_for_ever_little_is_told(instructions):
    _, data = report(BARE, blob=broken(instructions), steps=20_000, seconds=1.0)
    assert data["cut"]
    assert len(data["steps"]) < 1200
    assert data["handoff"] is None
    assert data["beyond"]["events"][-1][1] == "end"
    assert not [event for event in data["beyond"]["events"] if event[1] == "mark"]
    assert "handoff" not in [name for name, *_ in data["marks"]]
    assert len(packed(data)) < 50_000


def test_a_handoff_behind_the_last_step_is_checked_all_the_same():
    told, data = report(MICROVM, steps=100)
    assert data["cut"]
    assert len(data["steps"]) == 100
    assert data["handoff"] is None
    assert data["ok"]
    assert len(data["findings"]) == 27
    assert data["memory"]["structures"]
    assert told.outcome.handoff is not None
    counted = sum(times_of(data, row) for row, kind in enumerate(kinds_of(data)) if kind in KINDS)
    behind = sum(count for _, kind, _, count in data["beyond"]["events"] if kind == "access")
    assert counted + behind == sum(told.outcome.handoff.counts.get(kind, 0) for kind in KINDS)


def test_what_a_firmware_prints_stands_at_its_steps():
    _, data = report(MICROVM, blob=build(MICROVM, verbose=True))
    printed = "".join(text for _, device, text in data["console"] if device == "debugcon")
    assert printed.splitlines()[0] == "pvhboot 0x10 flat 32-bit protected mode"
    assert [step for step, *_ in data["console"]] == sorted(step for step, *_ in data["console"])
    assert "POST code 0x10: flat 32-bit protected mode" in data["sentences"]


def test_a_long_line_that_one_instruction_prints_is_told_whole(engine_name):
    """The panic of a firmware that has no fw_cfg, which is longer than what an effect keeps of a transfer."""
    _, data = report(BARE, blob=build(MICROVM), engine=engine_name)
    ((step, device, text),) = data["console"]
    assert device == "debugcon"
    assert text.startswith("pvhboot panic 0xea NO_FW_CFG: ")
    assert len(text) > 64
    assert data["sites"][data["steps"][step - 1]][3].startswith("rep outsb")
    assert any(words.startswith(f'prints "{text[:20]}') for words in data["sentences"])
