"""What the plugin tells when a test has failed, and the files that it leaves."""

import json
import re

import pytest
from pvhboot.emu.kit import replay
from pvhboot.emu.trace import End
from pvhboot.emu.trace_file import TraceFile
from pvhboot.shim.machines import MICROVM
from pvhboot.shim.stock import default_blob
from pytest_runs import files_of, section

pytest_plugins = ["pytester"]

# A firmware that prints what its own device at port 0x600 answers, until that is 0:
# mov dx, 0x600; in al, dx; mov dx, 0x402; out dx, al; test al, al; jnz to the start; hlt.
OWN_DEVICE = """
    CODE = bytes.fromhex("ba0006 ec ba0204 ee 84c0 75f4 f4")
    ROM = CODE.ljust(0xFFF0, b"\\xf4") + b"\\xe9\\x0d\\x00".ljust(16, b"\\xf4")

    class Spelling:
        def __init__(self):
            self.text = iter(b"spelled\\0")
        def read(self, offset, size):
            return next(self.text)
        def write(self, offset, size, value):
            raise AssertionError

    def test_it(pvh):
        machine = pvh(firmware=ROM, machine="microvm", devices={0x600: Spelling()})
        machine.run_until_handoff()
"""
IN_A_CHECKPOINT = """
    import pytest

    @pytest.fixture(scope="module")
    def booted(pvh_module):
        machine = pvh_module(machine="microvm")
        machine.run_until_handoff()
        return machine

    def test_one(booted):
        with booted.checkpoint():
            booted.memory[0x100000:0x100002] = b"\\x0f\\x0b"
            booted.run_until(console="result")

    def test_two(booted):
        assert booted.memory[0x100000] == 0
"""


def lines_between(told, first, last=""):
    """The lines of a paragraph behind its heading."""
    lines = told.splitlines()
    start = next(number for number, line in enumerate(lines) if re.search(first, line)) + 1
    return lines[start : lines.index(last, start)]


def text_of(line):
    """The instruction in a line of address, bytes, text and place."""
    return re.fullmatch(r"  0x\w+  (?:[0-9a-f]{2} )+ *(\S.*?)(?:  .*)?", line).group(1)


def test_a_failure_tells_how_the_machine_came_there(run_pytest):
    result = run_pytest("""
        def test_it(pvh):
            machine = pvh(machine="microvm", fw_cfg={"etc/e820": None})
            machine.run_until_handoff()
    """)
    result.stdout.fnmatch_lines(["E *NotReached: the handoff was not reached: halt: hlt with interrupts off"])
    told = section(result)
    assert told.splitlines()[3].startswith("likely cause: ")
    assert re.search(r"^end: halt: .*; at 0x\w+, panic_halt\S* \(\w+\.s:\d+\), after \d+ instructions, \d+ device", told, re.M)
    assert "  protected mode, 32-bit code, paging off" in told
    assert re.search(r"^  cr0 0x11 \(PE ET\)", told, re.M)
    assert re.search(r"^  0x\w+  f4 +hlt +panic_halt \(\w+\.s:\d+\)$", told, re.M)
    assert re.search(r"^the last \d+ of \d+ accesses to devices:\n  ", told, re.M)
    assert lines_between(told, "^the debug console's last lines:")[0].startswith("  pvhboot panic")


def test_the_files_of_a_failure(run_pytest):
    result = run_pytest("""
        def test_it(pvh):
            pvh(machine="microvm", fw_cfg={"etc/e820": None}).run_until_handoff()
    """)
    files = files_of(section(result))
    outcome = json.loads(files["outcome.json"].read_text())
    assert (outcome["stop"]["reason"], outcome["machine"], outcome["ok"]) == ("halt", "microvm", False)
    assert "NO_E820" in files["debug-console.txt"].read_text()
    assert files["console.txt"].read_text() == ""
    assert files["firmware.bin"].read_bytes() == default_blob(MICROVM).data
    assert "kernel segment 0" in files["memory-map.txt"].read_text()
    assert re.search(r"^in +0x0514  0x554d4551 +fw_cfg-dma$", files["accesses.txt"].read_text(), re.M)
    with TraceFile(str(files["trace.jsonl"])) as trace:
        *records, end = trace
    assert isinstance(end, End)
    assert (end.reason, end.instructions) == ("halt", len(records))
    assert records[0].address == 0xFFFFFFF0
    assert records[-1].text == "hlt"


def test_a_machine_that_stands_at_a_handoff_that_was_refused(run_pytest):
    """A cause is told of what the test does not allow, and of nothing else."""
    source = """
        def test_it(pvh):
            machine = pvh()
            machine.run_until("handoff")
            machine.registers["eflags"] |= 1 << 9
            handoff = machine.run_until_handoff()
            handoff.check_abi(allow=[{allow}])
            assert handoff.start_info.cmdline == "mine"
    """
    told = section(run_pytest(source.format(allow="")))
    assert "likely cause: " in told
    assert "it stands at 0x100000, guest_image, after 119 instructions, 0 device accesses" in told
    assert "likely cause" not in section(run_pytest(source.format(allow="'cpu.eflags'")))


@pytest.mark.parametrize(
    ("refused", "cause"), [("cpu.tr", "TR was never loaded"), ("memmap.count", "memmap_entries counts one entry too many")]
)
def test_the_cause_of_what_was_refused(run_pytest, qboot, refused, cause):
    result = run_pytest(f"""
        KNOWN = ["cpu.tr", "cpu.mtrr", "memmap.count", "memmap.entries", "memmap.sorted"]
        def test_it(pvh):
            handoff = pvh(firmware="{qboot}", machine="microvm").run_until_handoff()
            handoff.check_abi(allow=[clause for clause in KNOWN if clause != "{refused}"])
    """)
    assert f"\nlikely cause: {cause}\n" in section(result)


def test_what_was_written_in_a_checkpoint_is_not_written_again(run_pytest):
    told = section(
        run_pytest("""
        def test_it(pvh):
            machine = pvh()
            machine.run_until_handoff()
            with machine.checkpoint():
                machine.memory[0x100000] = 0xF4
            machine.run_until_exit(max_instructions=100)
    """)
    )
    assert "end: limit: " in told
    assert "the last 16 instructions:" in told


def test_a_machine_that_was_stopped_by_an_access_is_found_there_again(run_pytest, engine_name):
    told = section(
        run_pytest(f"""
        def test_it(pvh):
            machine = pvh(engine="{engine_name}")
            machine.run_until(console="guest")
            assert machine.stop is not None
    """)
    )
    assert "the last 16 instructions:" in told


def test_what_a_device_of_the_test_answered_is_answered_again(run_pytest):
    told = section(run_pytest(OWN_DEVICE))
    assert lines_between(told, "^the debug console's last lines:")[0].startswith("  spelled")
    assert "done again" not in told
    executed = lines_between(told, r"^the last 16 instructions:")
    assert [text_of(line) for line in executed[-3:]] == ["test al, al", "jne 0xffff0000", "hlt"]


def test_what_the_test_wrote_is_written_again(run_pytest):
    """inc eax, twice; hlt: at the kernel's entry, where eax was written as well."""
    told = section(
        run_pytest("""
        def test_it(pvh):
            machine = pvh()
            machine.run_until_handoff()
            machine.registers["eax"] = 5
            machine.memory[0x100000:0x100003] = b"\\x40\\x40\\xf4"
            assert machine.run_until_exit(max_instructions=100) == 0
    """)
    )
    assert "eax 0x00000007" in told
    executed = lines_between(told, r"^the last 16 instructions:")
    assert [text_of(line) for line in executed[-3:]] == ["inc eax", "inc eax", "hlt"]


def test_a_failure_behind_the_handoff_where_nothing_was_counted(run_pytest, engine_name):
    told = section(
        run_pytest(f"""
        def test_it(pvh):
            machine = pvh(engine="{engine_name}")
            machine.run_until_handoff()
            machine.memory[0x100000:0x100003] = b"\\x40\\x40\\xf4"
            machine.run_until(console="result")
    """)
    )
    executed = lines_between(told, r"^the last 16 instructions:")
    assert [text_of(line) for line in executed[-3:]] == ["inc eax", "inc eax", "hlt"]


def test_a_failure_that_is_too_far_away_to_be_done_again(run_pytest, monkeypatch):
    monkeypatch.setitem(replay.WATCHED, "unicorn", 500)
    told = section(
        run_pytest("""
        def test_it(pvh):
            machine = pvh()
            machine.run_until(console="result ok")
            assert machine.memory[0x100000] == 0
    """)
    )
    assert "the last instructions are not known: done again, it had not come there after 500 instructions" in told


def test_only_the_last_instructions_are_watched(run_pytest, monkeypatch):
    monkeypatch.setitem(replay.WATCHED, "unicorn", 40)
    told = section(
        run_pytest("""
        def test_it(pvh):
            machine = pvh(machine="microvm")
            machine.memory[0x7000] = 1
            machine.run_until("handoff")
            machine.memory[0x7000] = 2
            assert machine.ip == 0
    """)
    )
    assert len(lines_between(told, r"^the last 16 instructions:")) == 16
    with TraceFile(str(files_of(told)["trace.jsonl"])) as trace:
        executed = sum(record.times for record in trace if not isinstance(record, End))
    assert 38 <= executed <= 40  # where a rep ends unicorn counts once more


def test_a_failure_in_a_checkpoint_is_told_as_it_was_there(run_pytest):
    result = run_pytest(IN_A_CHECKPOINT)
    result.assert_outcomes(failed=2)
    first, second = section(result, 1), section(result, 2)
    assert "end: fault: " in first
    assert lines_between(first, r"^the last 16 instructions:")[-1].split()[1:4] == ["0f", "0b", "ud2"]
    assert "it stands at 0x100000, guest_image, after" in second
    assert "the last 16 instructions" not in second  # nothing is wrong with how it came there
    assert "the last 16 instructions" in files_of(second)["report.txt"].read_text()


def test_what_failed_in_a_checkpoint_is_not_told_of_the_next_test(run_pytest):
    result = run_pytest("""
        import pytest

        @pytest.fixture(scope="module")
        def booted(pvh_module):
            machine = pvh_module()
            return machine, machine.run_until_handoff()

        def test_one(booted):
            with pytest.raises(ValueError), booted[0].checkpoint():
                booted[0].step(2)
                raise ValueError

        def test_two(booted):
            assert booted[0].registers["eax"] == 0x77
    """)
    result.assert_outcomes(passed=1, failed=1)
    assert "it stands at 0x100000, guest_image, after 119 instructions" in section(result)


def test_a_failure_of_a_fixture_of_the_module(run_pytest):
    result = run_pytest("""
        import pytest
        @pytest.fixture(scope="module")
        def booted(pvh_module):
            pvh_module()
            machine = pvh_module(machine="microvm")
            machine.run_until_handoff(max_instructions=10)
        def test_it(booted):
            pass
    """)
    result.assert_outcomes(errors=1)
    assert "on microvm with 512 MiB" in section(result)
    assert "end: limit: 10 instructions have been executed; at " in section(result)


def test_a_failure_on_qemu(run_pytest, plain_qemu):  # noqa: ARG001
    told = section(
        run_pytest("""
        def test_it(pvh):
            machine = pvh(engine="qemu", machine="microvm", append="hello")
            assert machine.run_until_handoff().start_info.cmdline == "mine"
    """)
    )
    assert "it stands at 0x100000, guest_image" in told
    assert "protected mode, 32-bit code, paging off" in files_of(told)["report.txt"].read_text()


def test_an_endless_loop(run_pytest, monkeypatch):
    """It is not done again to its end."""
    monkeypatch.setattr(replay, "EXECUTED", 1000)
    told = section(
        run_pytest("""
        def test_it(pvh):
            rom = b"\\x40\\xeb\\xfd".ljust(0xFFF0, b"\\xf4") + b"\\xe9\\x0d\\x00".ljust(16, b"\\xf4")
            pvh(firmware=rom, machine="microvm").run_until_handoff(max_instructions=5000)
    """)
    )
    assert "end: limit: 5000 instructions have been executed; at 0xffff0001" in told
    executed = lines_between(told, "^the last 16 instructions, done again up to instruction 1000:")
    assert {text_of(line) for line in executed} == {"inc ax", "jmp 0xffff0000"}


@pytest.mark.parametrize(("option", "traces"), [("fail", [True, None]), ("all", [True, True]), ("no", [False, None])])
def test_for_which_tests_there_are_files_and_a_trace(run_pytest, pytester, option, traces):
    source = """
        def test_bad(pvh):
            assert pvh().run_until_handoff().start_info.cmdline == "x"
        def test_good(pvh):
            pvh().run_until_handoff().check_abi()
    """
    run_pytest(source, f"--pvh-trace={option}", "--pvh-artifacts=files")
    found = [pytester.path / "files" / f"test_it.py-{name}" for name in ("test_bad", "test_good")]
    assert [(path / "trace.jsonl").exists() if path.exists() else None for path in found] == traces


def test_tests_of_similar_names_have_a_directory_each(run_pytest, pytester):
    run_pytest(
        """
        import pytest
        @pytest.mark.parametrize("name", ["a b", "a-b", "a/b", "x" * 200 + "1", "x" * 200 + "2"])
        def test_bad(pvh, name):
            pvh()
            assert 1 == 2
        """,
        "--pvh-artifacts=files",
    )
    assert len(list((pytester.path / "files").glob("*/outcome.json"))) == 5


def test_under_xdist_each_test_has_its_directory(run_pytest, pytester):
    source = """
        import pytest
        @pytest.mark.parametrize("number", range(4))
        def test_bad(pvh, number):
            first, second = pvh(), pvh(machine="microvm")
            assert second.run_until_handoff().start_info.cmdline == str(number)
    """
    result = run_pytest(source, "-n2", "--pvh-artifacts=files")
    result.assert_outcomes(failed=4)
    assert len(re.findall(r"^files: .*machine-2$", result.stdout.str(), re.M)) == 4
    names = {str(path.relative_to(pytester.path)) for path in (pytester.path / "files").glob("*/*/outcome.json")}
    assert names == {
        f"files/test_it.py-test_bad[{number}]/machine-{each}/outcome.json" for number in range(4) for each in (1, 2)
    }


def test_a_report_that_cannot_be_written_does_not_hide_the_failure(run_pytest, pytester):
    (pytester.path / "files").write_text("no directory")
    result = run_pytest("def test_it(pvh):\n    pvh()\n    assert 1 == 2", "--pvh-artifacts=files")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *assert 1 == 2"])
    told = section(result)
    assert re.search(r"^it stands at 0xfffffff0, reset_vector", told, re.M)
    assert re.search(r"^no files: .*/files/test_it.py-test_it: Not a directory$", told, re.M)


def test_nor_does_a_report_that_goes_wrong(run_pytest, monkeypatch):
    monkeypatch.setattr("pvhboot.emu.kit.failure.state_text", None)
    result = run_pytest("def test_it(pvh):\n    pvh()\n    assert 1 == 2")
    result.assert_outcomes(failed=1)
    assert "nothing can be told of this machine: TypeError: " in section(result)


def test_all_machines_are_watched_by_who_asks_for_it(run_pytest):
    conftest = """
        from pvhboot.emu.engines.base import Watch
        from pvhboot.emu.pytest_plugin import WATCHERS

        TOLD = []

        class Counting:
            def start(self, cpu, board):
                return Watch(lambda address, size: TOLD.append(address))

        def pytest_sessionstart(session):
            session.config.stash[WATCHERS].append(lambda plan, blob, engine: Counting() if engine == "unicorn" else None)
    """
    result = run_pytest(
        """
        from conftest import TOLD
        def test_it(pvh):
            machine = pvh()
            machine.run_until_handoff()
            assert len(TOLD) == machine.instructions and TOLD[0] == 0xFFFFFFF0
            pvh(engine="qemu")
        """,
        conftest=conftest,
    )
    result.assert_outcomes(passed=1)
