"""The check itself: what an engine may not see is a literal table, and whatever else is unseen fails a run."""

from pvhboot.emu.check import CLAUSES, OK, UNOBSERVABLE, VIOLATED, Finding, check, is_clean
from pvhboot.emu.engines.base import HANDOFF, Limits, Until
from pvhboot.emu.handoff import UNOBSERVABLE_CLAUSES
from pvhboot.emu.session import ENGINES, boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_blob, default_guest


def test_what_each_engine_cannot_observe():
    assert {engine: set(clauses) for engine, clauses in UNOBSERVABLE_CLAUSES.items()} == {"unicorn": set(), "kvm": set()}
    assert set(UNOBSERVABLE_CLAUSES) == set(ENGINES)


def test_a_clause_that_should_have_been_seen_fails_the_run():
    assert is_clean("kvm", [Finding("cpu.cr0", OK, "")])
    assert not is_clean("kvm", [Finding("cpu.mtrr", UNOBSERVABLE, "")])
    assert not is_clean("unknown engine", [Finding("cpu.mtrr", UNOBSERVABLE, "")])
    assert not is_clean("kvm", [Finding("cpu.cr0", VIOLATED, "")])


def handoff_and_plan():
    kernel = Kernel.from_bytes(default_guest(64), "guest")
    blob = default_blob(BARE)
    plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB, cmdline="x")
    outcome = boot(plan, blob, get_engine("unicorn"), Until(HANDOFF), Limits())
    assert outcome.ok
    return outcome.handoff, plan


def violated(handoff, plan):
    return [finding.clause for finding in check(handoff, plan) if finding.status == VIOLATED]


def test_every_clause_gives_one_finding():
    assert [finding.clause for finding in check(*handoff_and_plan())] == list(CLAUSES)


def test_what_the_engine_did_not_read_is_unobservable():
    handoff, plan = handoff_and_plan()
    unseen = [finding.clause for finding in check(handoff._replace(has_mtrr=None), plan) if finding.status == UNOBSERVABLE]
    assert unseen == ["cpu.mtrr"]


def test_no_mtrr_no_clause_to_break():
    handoff, plan = handoff_and_plan()
    assert violated(handoff._replace(has_mtrr=False, mtrr_def_type=None), plan) == []


def test_registers_one_by_one():
    handoff, plan = handoff_and_plan()
    for name, value, clause in (
        ("eip", plan.entry + 1, "entry.eip"),
        ("cr0", 0x13, "cpu.cr0"),
        ("cr0", 0x10, "cpu.cr0"),
        ("cr0", 0x80000011, "cpu.cr0"),
        ("cr4", 1 << 5, "cpu.cr4"),
        ("eflags", 1 << 17, "cpu.eflags"),
        ("eflags", 1 << 8, "cpu.eflags"),
        ("eflags", 1 << 9, "cpu.eflags"),
    ):
        assert violated(handoff._replace(registers={**handoff.registers, name: value}), plan) == [clause], (name, value)


def test_segments_bit_by_bit():
    handoff, plan = handoff_and_plan()
    for name in ("cs", "ds", "es", "ss"):
        good = handoff.segments[name]
        for change in (
            {"base": 0x10},
            {"limit": 0xFFFFF},
            {"db": False},
            {"long": True},
            {"present": False},
            {"s": False},
            {"type": good.type ^ 8},
            {"type": good.type & ~2},
        ):
            segments = {**handoff.segments, name: good._replace(**change)}
            assert violated(handoff._replace(segments=segments), plan) == [f"cpu.{name}"], (name, change)
    for change in ({"base": 1}, {"limit": 0xFFFF}, {"selector": 0}, {"present": False}, {"type": 1}, {"s": True}):
        segments = {**handoff.segments, "tr": handoff.segments["tr"]._replace(**change)}
        assert violated(handoff._replace(segments=segments), plan) == ["cpu.tr"], change
