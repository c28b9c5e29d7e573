"""`pvhboot vary`: boots with one thing changed, what each comes to, and who has noticed."""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from command_line import fails
from pvhboot.emu.cli import main
from pvhboot.emu.vary.faults import (
    ABSENT,
    DMA,
    DROPPED,
    ERROR,
    FLIP_LOW,
    HALF,
    ITEM,
    NEVER,
    NOTHING,
    ONES,
    RAM,
    READ,
    REGISTER,
    SHORT,
    WRITE,
    Fault,
)
from pvhboot.emu.vary.judging import CHECK, ENDED, PANIC, SAME, SILENT, TEST
from pvhboot.emu.vary.matrix import FIRMWARE_VARIABLE, ShellTest, vary
from pvhboot.emu.vary.mutants import mutations
from pvhboot.emu.vary.setup import Setup
from pvhboot.emu.vary.trial import reference
from pvhboot.loader.fw_cfg import directory
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MACHINES, MIB
from pvhboot.shim.stock import default_blob, default_guest

START_INFO = 0x6000


def setup(machine, **more):
    more = {"cmdline": "a line", "memory": 64 * MIB, **more}
    return Setup(machine, default_blob(MACHINES[machine]).data, default_guest(64), **more)


@pytest.fixture(scope="module")
def unchanged():
    """The unchanged boot of each machine that a test asks for."""
    contexts = {}

    def boot(machine):
        if machine not in contexts:
            context = reference(setup(machine))
            contexts[machine] = context, context.__enter__()
        return contexts[machine][1]

    yield boot
    for context, _ in contexts.values():
        context.__exit__(None, None, None)


# The firmware of bare, with one of its instructions another one: by operator, what it was and is, and what that comes to.
MUTANTS = [
    ("drop", "ltr ax", "nothing", CHECK, "cpu.tr: "),
    ("drop", "lgdt cs:[0xe86a]", "nothing", ENDED, ""),
    ("drop", "cld", "nothing", SAME, ""),
    ("constant", "mov dword ptr [edi], 0x336ec578", "mov dword ptr [edi], 0x336ec579", CHECK, "start_info.magic: "),
    ("constant", "mov dword ptr [edi + 4], 1", "mov dword ptr [edi + 4], 2", SILENT, "start_info.version: 0x1 → 0x2"),
    ("constant", "mov esp, 0x3000", "mov esp, 0x3001", SAME, ""),
    ("constant", "mov ebx, 0x6000", "mov ebx, 0x6001", CHECK, "start_info.magic: "),
    ("invert", "jne 0xffff81a0", "je 0xffff81a0", PANIC, "pvhboot panic 0xe1 PARAMS_MAGIC: "),
    ("register", "mov dword ptr [edi + 0x30], ebx", "mov dword ptr [edi + 0x30], edx", CHECK, "memmap.location: 0 entries"),
    ("displacement", "mov dword ptr [edi + 0x30], ebx", "mov dword ptr [edi + 0x34], ebx", CHECK, "memmap.location: 0 entries"),
]


@pytest.mark.parametrize(("operator", "was", "now", "word", "detail"), MUTANTS, ids=[f"{row[0]}: {row[2]}" for row in MUTANTS])
def test_a_mutant_comes_to(unchanged, operator, was, now, word, detail):
    boot = unchanged("bare")
    mnemonic = was.split()[0]
    found = [
        mutation
        for mutation in mutations(boot.watched.instructions.values(), [operator])
        if (mutation.was, mutation.now) == (was, now)
        or (operator in ("invert", "drop") and mutation.was.split()[0] == mnemonic)
    ]
    assert found, "the firmware has no such instruction any more"
    verdict = boot.try_change(found[0])
    assert verdict.word == word
    assert verdict.detail.startswith(detail)


def fault(family, how, number, target=None):
    return Fault(family, how, number, "", None, target)


# A host that is wrong in one thing: on which machine, what it does, and what that comes to.
FAULTS = {
    "dma-fails": ("microvm", fault(DMA, ERROR, 0), PANIC, "pvhboot panic 0xeb FW_CFG_DMA: "),
    "dma-never-ends": ("microvm", fault(DMA, NEVER, 3), PANIC, "pvhboot panic 0xeb FW_CFG_DMA: "),
    "dma-moves-nothing": ("microvm", fault(DMA, NOTHING, 1), PANIC, "pvhboot panic 0xee E820_LOW: "),
    "dma-flips-a-bit": ("microvm", fault(DMA, FLIP_LOW, 6), CHECK, "cmdline: "),
    "no-dma-signature": ("microvm", fault(READ, ONES, 0), SAME, ""),
    "dma-is-not-started": ("microvm", fault(WRITE, DROPPED, 1), PANIC, "pvhboot panic 0xeb FW_CFG_DMA: "),
    "shadow-ram-is-not-opened": ("q35", fault(WRITE, DROPPED, 5), PANIC, "pvhboot panic 0xeb FW_CFG_DMA: "),
    "ecam-is-not-opened": ("q35", fault(WRITE, DROPPED, 9), SILENT, "device store: 5 → 4 of them"),
    "no-file-directory": ("microvm", fault(ITEM, ABSENT, 0x19), PANIC, "pvhboot panic 0xed NO_E820: "),
    "no-cmdline-size": ("microvm", fault(ITEM, ABSENT, 0x14), CHECK, "cmdline: the command line is absent"),
    "half-a-cmdline": ("microvm", fault(ITEM, HALF, 0x15), CHECK, "cmdline: "),
    "cmdline-without-its-nul": ("microvm", fault(ITEM, SHORT, 0x15), SAME, ""),
    "memory-flips-a-bit": ("bare", fault(RAM, FLIP_LOW, 126, START_INFO), CHECK, "start_info.magic: "),
    "memory-flips-one-too-early": ("bare", fault(RAM, FLIP_LOW, 0, START_INFO), SAME, ""),
    "a-register-flips-a-bit": ("bare", fault(REGISTER, FLIP_LOW, 126, "ebx"), CHECK, "start_info.magic: "),
    "a-register-flips-too-early": ("bare", fault(REGISTER, FLIP_LOW, 0, "ebx"), SAME, ""),
}


@pytest.mark.parametrize(("machine", "changed", "word", "detail"), FAULTS.values(), ids=FAULTS)
def test_a_fault_comes_to(unchanged, machine, changed, word, detail):
    boot = unchanged(machine)
    if changed.family in (RAM, REGISTER) and changed.number:
        changed = changed._replace(number=boot.trial.outcome.run.counts["instructions"] - 1)
    verdict = boot.try_change(changed)
    assert verdict.word == word
    assert verdict.detail.startswith(detail)


def test_smbios_that_is_not_there_is_silent(unchanged):
    """No clause of the check is about it, and a firmware cannot know that there should be one."""
    boot = unchanged("q35")
    files = {name: key for key, name in boot_files(boot).items()}
    verdict = boot.try_change(fault(ITEM, ABSENT, files[b"etc/smbios/smbios-anchor"]))
    assert (verdict.word, verdict.effects) == (SILENT, ("SMBIOS: not found",))


def boot_files(boot):
    return {key: file.name.rstrip(b"\0") for key, file in directory(boot.items).items()}


def test_what_relies_on_zeroed_memory_is_found_in_dirty_memory():
    """A firmware that forgets to clear a field: start_info's flags."""
    words = {}
    for dirty in (False, True):
        with reference(setup("bare", dirty=dirty)) as boot:
            (mutation,) = [
                mutation
                for mutation in mutations(boot.watched.instructions.values(), ["drop"])
                if mutation.was == "mov dword ptr [edi + 8], eax"
            ]
            words[dirty] = boot.try_change(mutation).word
    assert words == {False: SAME, True: CHECK}


def test_a_firmware_that_does_not_boot_is_refused():
    with pytest.raises(BootError, match=r"does not get to the kernel, so there is nothing to change: halt"):
        vary(setup("bare")._replace(firmware=bytes(0xFFF0) + b"\xf4".ljust(16, b"\0")), [])


# Many at once.


@pytest.fixture(scope="module")
def some(unchanged):
    """Every tenth mutant of bare."""
    return mutations(unchanged("bare").watched.instructions.values())[::10]


def test_it_does_not_matter_where_it_is_done(some):
    told = []
    here = vary(setup("bare"), some, on_progress=lambda done, total: told.append((done, total)))
    assert [result.change for result in here] == some
    assert told == sorted(told)
    assert told[-1] == (len(some), len(some))
    assert len({result.verdict.word for result in here}) >= 4
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        assert vary(setup("bare"), some, executor=executor) == here


def test_dask_is_an_executor_like_any_other(some):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed: it comes with the extra `test`")
    with (
        distributed.LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        assert vary(setup("bare"), some, executor=executor) == vary(setup("bare"), some)


def test_a_worker_that_lives_on_reads_the_files_anew(tmp_path, some):
    kernel = tmp_path / "kernel"
    kernel.write_bytes(default_guest(64))
    named = setup("bare")._replace(kernel=str(kernel))
    with ThreadPoolExecutor(1) as executor:
        assert vary(named, some[:3], executor=executor) == vary(setup("bare"), some[:3])
        kernel.unlink()
        with pytest.raises(BootError, match="kernel"):
            vary(named, some[:3], executor=executor)


# A test command in place of the check.


def test_a_test_command_judges(tmp_path, some):
    original = tmp_path / "original"
    original.write_bytes(setup("bare").firmware)
    notices_all = ShellTest(f'cmp -s "${FIRMWARE_VARIABLE}" {original}', 20.0)
    assert {result.verdict.word for result in vary(setup("bare"), some[:4], test=notices_all)} == {TEST}


def test_what_a_test_command_lets_pass_is_judged_by_itself(some):
    alone = vary(setup("bare"), some[:8])
    passed = vary(setup("bare"), some[:8], test=ShellTest("true", 20.0))
    for without, with_test in zip(alone, passed, strict=True):
        word = without.verdict.word
        assert with_test.verdict.word == (SAME if word == SAME else SILENT)
        assert word == SAME or f"the test passes; by itself: {word}" in with_test.verdict.detail


def test_a_test_command_that_does_not_end_has_failed(tmp_path, some):
    started = tmp_path / "started"
    command = f"test -e {started} || {{ touch {started}; exit 0; }}; sleep 60 & wait"  # the first time it is the unchanged one
    ((_, verdict),) = vary(setup("bare"), some[:1], test=ShellTest(command, 0.3))
    assert verdict == (TEST, "not done after 0.3 seconds", None, ())


def test_what_a_test_command_leaves_behind_ends_with_it(tmp_path):
    number = tmp_path / "number"
    assert ShellTest(f"sleep 600 & echo $! > {number}", 20.0).run(b"") == ""
    assert is_gone(int(number.read_text()))


def is_gone(process):
    """It may take a moment until whoever inherits it has buried it."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_with_a_test_command_each_change_is_told_of(some):
    told = []
    vary(setup("bare"), some[:3], test=ShellTest("true", 20.0), on_progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("changes", "command", "said"),
    [
        ((), "exit 3", "the test command fails with the unchanged firmware, so it would fail with any: exit status 3$"),
        ((), "echo first; echo last; echo; exit 3", ": exit status 3: last$"),
        ((), "/nonexistent/cmd", "exit status 127: .*/nonexistent/cmd: .*not found"),
        ((fault(DMA, ERROR, 0),), "true", "a test command is given a firmware: it judges mutants, not faults of a host"),
    ],
    ids=["fails-always", "fails-with-words", "no-such-command", "faults"],
)
def test_what_a_test_command_is_not_for(changes, command, said):
    with pytest.raises(BootError, match=said):
        vary(setup("bare"), changes, test=ShellTest(command, 20.0))


# The command.


def run(capsys, *arguments):
    status = main(["vary", *arguments, "--jobs", "1"])
    out, err = capsys.readouterr()
    assert err == ""
    return status, out


def test_the_command_counts_and_lists_who_survives(capsys):
    status, out = run(capsys, "--mutants", "--only", "constant", "--sample", "60")
    lines = out.splitlines()
    assert status == 1
    assert "trying 60 mutants of them" in lines[1]
    assert lines[3].split()[-1] == "all"
    assert lines[4].split()[0] == "constant"
    assert lines[5].split()[0] == "all"
    assert lines[5].split()[-1] == "60"
    survivor = next(at for at, line in enumerate(lines) if line.startswith("SILENT"))
    assert "(start_info.s:" in lines[survivor]
    assert lines[survivor + 1].startswith("    start_info.version: 0x1 → ")
    assert not [line for line in lines if line.startswith(("check", "panic"))]
    assert lines[-1].startswith("60 changes: ")


def test_the_command_is_content_when_all_is_noticed(capsys):
    status, out = run(capsys, "--faults", "--machine", "microvm", "--only", "read,item", "-v")
    assert status == 0
    assert "SILENT" not in out
    assert "panic  item: fw_cfg's file etc/e820 is not there\n    pvhboot panic 0xee E820_LOW: " in out
    assert "(100.0 %)" in out


def test_the_same_seed_is_the_same_sample(capsys):
    def changes(*arguments):
        found = json.loads(run(capsys, "--mutants", "--sample", "8", "--json", *arguments)[1])
        return [(change["offset"], change["after"]) for change in found["changes"]]

    assert changes() == changes("--seed", "0") != changes("--seed", "1")


def test_json_has_everything_of_a_change(capsys):
    status, out = run(capsys, "--mutants", "--only", "constant", "--json")
    found = json.loads(out)
    assert (status, found["ok"]) == (1, False)
    assert sum(found["counts"].values()) == len(found["changes"])
    (version,) = [change for change in found["changes"] if change["change"].endswith("mov dword ptr [edi + 4], 2")]
    place = version.pop("place")
    assert place.endswith(")")
    assert "(start_info.s:" in place
    assert version == {
        "kind": "constant",
        "change": "mov dword ptr [edi + 4], 1  →  mov dword ptr [edi + 4], 2",
        "address": version["address"],
        "offset": version["address"] - 0xFFFF0000,
        "before": "c7470401000000",
        "after": "c7470402000000",
        "verdict": "SILENT",
        "detail": "start_info.version: 0x1 → 0x2",
        "ended_at": None,
        "effects": ["start_info.version: 0x1 → 0x2"],
    }


def test_a_foreign_firmware_that_goes_on_with_wrong_data(capsys, qboot):
    """qboot does without etc/e820, and tells its kernel of RAM that is not there."""
    arguments = ("--faults", "--machine", "microvm", "--firmware", str(qboot), "--only", "item", "--sample", "20")
    status, out = run(capsys, *arguments, "--seed", "3")
    assert status == 1
    assert "SILENT  item: fw_cfg's file etc/e820 " in out
    assert "memory map entry 4" in out


def test_a_foreign_firmware_has_mutants_too(capsys, qboot):
    status, out = run(capsys, "--mutants", "--machine", "microvm", "--firmware", str(qboot), "--sample", "12", "-v")
    assert status in (0, 1)
    assert "at ROM+0x" in out
    assert out.splitlines()[-1].startswith("12 changes: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mutants", "--only", "dma"), "no kind of mutants named 'dma'; there is: drop, invert, always, constant,"),
        (("--faults", "--only", "drop"), "no kind of faults named 'drop'; there is: dma, read, write, item, ram, register"),
        (("--faults",), "nothing of dma, read, write, item can go wrong: on bare this firmware asks no device for it;"),
        (
            ("--faults", "--machine", "microvm", "--test", "true"),
            "--test is for --mutants: a test command is given a firmware,",
        ),
        (("--mutants", "--test", "true", "--test-timeout", "0"), "--test-timeout 0.0: give a number above 0"),
        (("--mutants", "--test-timeout", "3"), "--test-timeout is for --test: give the command"),
        (("--mutants", "--jobs", "0"), "--jobs 0: give a number above 0"),
        (("--mutants", "--sample", "0"), "--sample 0: give a number above 0"),
        (("--mutants", "no-such-file"), "no-such-file"),
        (("--mutants", "--no-dma"), "--no-dma is about fw_cfg, which the machine bare does not have"),
        (("--mutants", "--firmware", os.devnull), "firmware"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, said):
    assert said in fails(capsys, "vary", *arguments)
