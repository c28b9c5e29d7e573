"""The plugin for pytest, as another project meets it: its own little test files, run by pytest."""

import subprocess
import sys

import pytest
from pvhboot.emu.engines.kvm import uapi

pytest_plugins = ["pytester"]


def test_the_first_test(run_pytest):
    result = run_pytest("""
        def test_boot(pvh):
            machine = pvh(memory="64M", append="hello")
            handoff = machine.run_until_handoff()
            handoff.check_abi()
            assert handoff.start_info.cmdline == "hello"
    """)
    result.assert_outcomes(passed=1)


ENGINES_TEST = """
    def test_boot(pvh, pvh_engine):
        machine = pvh(machine="microvm")
        machine.run_until_handoff().check_abi()
        assert machine.engine == pvh_engine
"""


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["unicorn", "kvm", "qemu"]),
        (["--pvh-engine", "unicorn"], ["unicorn"]),
        (["--pvh-engine", "qemu,unicorn"], ["qemu", "unicorn"]),
        (["--pvh-engine", "kvm", "--pvh-engine=unicorn"], ["kvm", "unicorn"]),
    ],
)
def test_the_engines_that_a_test_runs_on(run_pytest, options, names):
    result = run_pytest(ENGINES_TEST, "--collect-only", "-q", *options)
    assert [line for line in result.outlines if "::" in line] == [f"test_it.py::test_boot[{name}]" for name in names]


def test_a_test_runs_on_each_engine_that_is_there(run_pytest, monkeypatch):
    monkeypatch.setattr(uapi, "KVM_DEVICE", "/nowhere/kvm")
    monkeypatch.setenv("PATH", "/nowhere")
    result = run_pytest(ENGINES_TEST, "-rs")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*/nowhere/kvm does not exist*", "SKIPPED*qemu-system-x86_64 on the PATH*"])


def test_an_engine_that_is_asked_for_has_to_be_there(run_pytest, monkeypatch):
    monkeypatch.setattr(uapi, "KVM_DEVICE", "/nowhere/kvm")
    result = run_pytest(ENGINES_TEST, "--pvh-engine", "kvm")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["/nowhere/kvm does not exist*"])


def test_an_engine_that_there_is_not(run_pytest):
    result = run_pytest(ENGINES_TEST, "--pvh-engine", "bochs")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --pvh-engine: no engine named 'bochs'; there is: unicorn, kvm, qemu"])


@pytest.mark.parametrize(
    "how",
    [
        '"pvh_engine", ["unicorn"], indirect=True',
        'argnames="pvh_engine", argvalues=["unicorn"]',
        '"memory, pvh_engine", [("64M", "unicorn")]',
        '("pvh_engine", "memory"), [("unicorn", "64M")]',
    ],
)
def test_a_test_that_names_its_engine_itself(run_pytest, how):
    result = run_pytest(
        f"""
        import pytest
        @pytest.fixture
        def memory():
            return None
        @pytest.mark.parametrize({how})
        def test_boot(pvh, pvh_engine, memory):
            assert pvh(memory=memory).engine == "unicorn"
        """
    )
    result.assert_outcomes(passed=1)


def test_a_machine_that_the_tests_of_a_module_share(run_pytest):
    """Each test leaves it as it was; at the end of the module it is closed."""
    result = run_pytest("""
        import pytest
        MACHINES = []

        @pytest.fixture(scope="module")
        def booted(pvh_module, pvh_session):
            machine = pvh_module(machine="microvm")
            machine.run_until_handoff()
            MACHINES.append(machine)
            assert pvh_session().engine == "unicorn"
            return machine

        @pytest.mark.parametrize("number", range(3))
        def test_boot(booted, number):
            with booted.checkpoint():
                booted.run_until(console="check magic ok")
            assert booted.console == "" and booted.ip == booted.plan.entry
            assert MACHINES == [booted]
    """)
    result.assert_outcomes(passed=3)


def test_machines_are_closed_when_the_test_is_over(run_pytest):
    result = run_pytest("""
        MACHINES = []
        def test_one(pvh):
            MACHINES.extend([pvh(), pvh()])
            assert all(machine.board.memory.listeners for machine in MACHINES)
        def test_two():
            assert not any(machine.board.memory.listeners for machine in MACHINES)
    """)
    result.assert_outcomes(passed=2)


def test_bad_input_is_one_line_at_the_line_of_the_test(run_pytest):
    result = run_pytest("""
        def test_keyword(pvh):
            pvh(memry="64M")
        def test_symbol(pvh):
            pvh().run_until("nowhere")
    """)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ['>       pvh(memry="64M")', "E       pvhboot.shim.errors.BootError: a machine has no 'memry'; there is: engine, *"]
    )
    result.stdout.fnmatch_lines(['>       pvh().run_until("nowhere")', "E   *BootError: no symbol 'nowhere': see the listing*"])
    result.stdout.no_fnmatch_line("*/emu/*.py:*")


@pytest.mark.parametrize(
    ("comparison", "lines"),
    [
        (
            "machine.handoff.start_info.memmap == [(0, 0xA0000, 1), (0xFFFF0000, 0x10000, 2)]",
            [
                "E  *the memory maps differ (<*",
                "E * < 0x000000000000-0x000003ffffff  RAM       64 MiB",
                "E * > 0x000000000000-0x00000009ffff  RAM       640 KiB",
                "E *   0x0000ffff0000-0x0000ffffffff  reserved  64 KiB",
            ],
        ),
        ("machine.handoff.start_info.memmap == [(0, 1)]", ["E * > (0, 1), which is no (start, size, type)"]),
        (
            "machine.memory[0x100000:0x100040] == bytes(0x10) + machine.memory[0x100010:0x100040]",
            ["E *the memory differs (<*", "E *the first difference is at 0x100000 (0x0 bytes from the start); * bytes differ",
             "E * < 0x00100000  a3 00 *", "E * > 0x00100000  00 00 *  ................", "E *   0x00100010 *"],
        ),
        (
            "machine.registers == {**machine.registers, 'cr0': 0x60000010}",
            ["E *the registers differ (<*", "E *cr0        < 0x11 (PE ET) > 0x60000010 (ET NW CD)"],
        ),
        (
            "machine.io_log == other.io_log",
            ["E *the logs of accesses differ (<*", "E *the first difference is access 0; the left log has 0, the right one 10",
             "E *<    0  none", "E *>    0  in     0x0514  0x554d4551  fw_cfg-dma"],
        ),
        (
            "machine.handoff == other.handoff",
            ["E *the handoffs differ (<*", "E *memory map:", "E * < 0x000000000000-0x000003ffffff  RAM *", "E *command line:",
             "E * < None", "E * > 'hello'"],
        ),
    ],
)  # fmt: skip
def test_what_differs_is_shown_for_a_person(run_pytest, comparison, lines):
    result = run_pytest(
        f"""
        def test_it(pvh):
            machine, other = pvh(memory="64M"), pvh(machine="microvm", append="hello")
            machine.run_until_handoff()
            other.run_until_handoff()
            assert {comparison}
        """,
        "-vv",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(lines)


def test_other_comparisons_are_left_to_pytest(run_pytest):
    result = run_pytest("""
        def test_it(pvh):
            pvh()
            assert [1] == [2]
    """)
    result.stdout.fnmatch_lines(["E *At index 0 diff: 1 != 2"])


def test_the_plugin_costs_nothing_where_no_machine_is_built():
    code = "import sys, pvhboot.emu.pytest_plugin; print(*(name for name in sys.modules if name.startswith('pvhboot')))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(out) == {
        "pvhboot",
        "pvhboot.emu",
        "pvhboot.emu.pytest_plugin",
        "pvhboot.emu.engines",
        "pvhboot.emu.engines.names",
    }


def test_a_report_where_the_locale_has_no_letters_but_ascii(pytester, monkeypatch):
    """mov dx, 0x402; mov al, 0xe9; out dx, al; hlt: no text in UTF-8."""
    pytester.makepyfile("""
        def test_it(pvh):
            rom = bytes.fromhex("ba0204 b0e9 ee f4").ljust(0xFFF0, bytes(1)) + bytes.fromhex("e90d00").ljust(16, bytes(1))
            pvh(firmware=rom, machine="microvm").run_until_handoff()
    """)
    for name, value in (("LC_ALL", "C"), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONUTF8", "0")):
        monkeypatch.setenv(name, value)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--pvh-artifacts=files").assert_outcomes(failed=1)
    (file,) = pytester.path.glob("files/*/debug-console.txt")
    assert file.read_text("utf-8") == "\ufffd\n"
    assert (file.parent / "firmware.bin").exists()
