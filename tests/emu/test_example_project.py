"""docs/examples/testing-qboot: green as it stands, red with another ROM or another expectation, and the red says why."""

import shutil
from pathlib import Path

import pytest
from pytest_runs import section

pytest_plugins = ["pytester"]

PROJECT = Path(__file__).parent.parent.parent / "docs/examples/testing-qboot"
TESTS = "test_qboot.py"


@pytest.fixture
def project(pytester, qboot, monkeypatch):
    """A copy of the project in the current directory; runs it."""
    for file in PROJECT.glob("*.py"):
        shutil.copy(file, pytester.path)
    monkeypatch.setenv("QBOOT", str(qboot))
    return lambda *options: pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options)


def changed(pytester, old, new):
    path = pytester.path / TESTS
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_it_is_green(project):
    result = project("--pvh-engine=unicorn")
    assert result.parseoutcomes()["passed"] >= 10
    assert set(result.parseoutcomes()) == {"passed"}


def test_a_memory_map_that_is_expected_otherwise(project, pytester):
    changed(pytester, '("64M", [(MIB, 63 * MIB, RAM)])', '("64M", [(MIB, 64 * MIB, RAM)])')
    result = project("-k", "memory_map and 64M", "-vv")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(
        [
            "E *the memory maps differ (< is the left side, > the right one)",
            "E *   0x0000000f0000-0x0000000fffff  reserved  64 KiB",
            "E * < 0x000000100000-0x000003ffffff  RAM       63 MiB",
            "E * > 0x000000100000-0x0000040fffff  RAM       64 MiB",
        ]
    )


def test_a_clause_that_is_not_known_to_be_violated(project, pytester):
    changed(pytester, '"cpu.tr", ', "")
    result = project("-k", "handoff_meets_the_abi and unicorn")
    result.stdout.fnmatch_lines(
        [
            "E *1 of 27 clauses of the PVH ABI is not met that no allow excuses:",
            "E *cpu.tr  *TR was never loaded (null selector); its limit is 0xffff, not 0x67",
        ]
    )
    assert "likely cause: " in section(result)


def test_a_clause_that_is_met_by_now(project, pytester):
    changed(pytester, '"cpu.tr", ', '"cpu.tr", "cmdline", ')
    result = project("-k", "handoff_meets_the_abi and unicorn")
    result.stdout.fnmatch_lines(["E *allowed to be violated, but met (take them off `allow`): cmdline"])


def test_a_rom_that_does_not_get_to_the_kernel(project, pytester, qboot, monkeypatch):
    """The far jump to the kernel, jmp ecx, is made a hlt: what it stands at, and what came before, is said."""
    rom = bytearray(qboot.read_bytes())
    jump = bytes.fromhex("b802b0ad2bffe1")  # mov eax, 0x2badb002; jmp ecx
    assert rom.count(jump) == 1
    at = rom.index(jump) + 5
    rom[at : at + 2] = b"\xfa\xf4"  # cli; hlt
    (pytester.path / "doctored.rom").write_bytes(rom)
    monkeypatch.setenv("QBOOT", str(pytester.path / "doctored.rom"))
    result = project("-k", "without_dma")
    result.stdout.fnmatch_lines(
        [
            "E *NotReached: the handoff was not reached: halt: hlt with interrupts off",
            f"E *at 0xf{at + 2:04x}, ROM+{at + 2:#x}",
        ]
    )
    told = section(result)
    assert "mov eax, 0x2badb002" in told
    assert "eax 0x2badb002" in told
    assert "cli" in told


def test_a_rom_that_hands_over_something_else(project, pytester, qboot, monkeypatch):
    """The magic number of start_info has a wrong digit."""
    rom = qboot.read_bytes()
    magic = (0x336EC578).to_bytes(4, "little")
    assert rom.count(magic) == 1
    (pytester.path / "doctored.rom").write_bytes(rom.replace(magic, (0x336EC579).to_bytes(4, "little")))
    monkeypatch.setenv("QBOOT", str(pytester.path / "doctored.rom"))
    result = project("-k", "handoff_meets_the_abi and unicorn")
    result.stdout.fnmatch_lines(["E *start_info.magic  *0x336ec579*"])
