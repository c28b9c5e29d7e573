"""A boot that was recorded, as a notebook shows it."""

from collections.abc import Collection, Sequence
from functools import cached_property

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.errors import BootError

from ..causes.scene import Cause
from ..check import Finding
from ..descriptors import Gdt
from ..diagnosis import Diagnosis
from ..engines.base import describe_stop
from ..recorded import Recorded
from ..report.subject import subject_text
from ..report.text import cost_text, finding_lines, outcome_text
from ..session import Outcome
from ..shown import Printer, show_text
from .steps import Trace
from .values import IoLog, MemoryMap, Registers
from .view import HandoffView


class BootView:
    """A boot up to the kernel's first instructions, and what came of it. Each part draws itself in a notebook, and so does the
    whole; `print` tells them as the command line does. `recorded` and `diagnosis` are for what is not here."""

    def __init__(self, recorded: Recorded, diagnosis: Diagnosis, gdt: Gdt | None, devices: Collection[str]) -> None:
        """`gdt` is that of the handoff, or, if that was not reached, of the end (None: paging hid it); `devices` are the names
        of those on the board."""
        self.recorded, self.diagnosis = recorded, diagnosis
        self._gdt, self._devices = gdt, devices

    @property
    def outcome(self) -> Outcome:
        """What `pvhboot boot` would tell, ended at the handoff."""
        return self.recorded.outcome

    @property
    def plan(self) -> BootPlan:
        """What lies where."""
        return self.outcome.plan

    @property
    def clean(self) -> bool:
        """The handoff was reached, and no clause of the ABI is violated or unseen."""
        return self.outcome.clean

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the check says, clause by clause; empty if the handoff was not reached."""
        return self.outcome.findings

    @property
    def causes(self) -> Sequence[Cause]:
        """If it is not clean, why that may be, the likeliest first."""
        return self.diagnosis.causes

    @cached_property
    def handoff(self) -> HandoffView:
        """The machine when the kernel's first instruction is next; BootError if it did not come to that."""
        outcome = self.outcome
        if outcome.handoff is None:
            raise BootError(
                f"the handoff was not reached: {describe_stop(outcome.run.stop)} (trace[-16:] shows the last steps)"
            )
        return HandoffView(outcome.handoff, outcome.plan, tables=outcome.tables, findings=outcome.findings, gdt=self._gdt)

    @property
    def memory_map(self) -> MemoryMap:
        """What the kernel is told of memory; BootError if the handoff was not reached."""
        return self.handoff.memory_map

    @property
    def gdt(self) -> Gdt:
        """The GDT at the handoff, or, if that was not reached, where the run ended; BootError if paging was on."""
        if self._gdt is None:
            raise BootError("paging was on: where the GDT lies in physical memory is not known")
        return self._gdt

    @cached_property
    def trace(self) -> Trace:
        """Each instruction of the firmware, and the kernel's first ones."""
        recorded = self.recorded
        handoff = None if recorded.handoff is None else recorded.handoff + 1
        return Trace(recorded.records, recorded.sources, handoff=handoff, sees_memory=recorded.sees_memory)

    def before(self, number: int) -> Registers:
        """All registers (names of STATE_REGISTERS) in front of the instruction of that number; BootError if there is none."""
        for at, state in enumerate(self.recorded.states(), 1):
            if at == number <= len(self.trace):
                return Registers(state)
        raise BootError(f"no instruction has the number {number}: they go from 1 to {len(self.trace)}")

    @property
    def io_log(self) -> IoLog:
        """The accesses to devices, the kernel's included."""
        return IoLog(self.outcome.accesses or (), self._devices)

    @property
    def debug_console(self) -> str:
        """What port 0x402 has printed."""
        return self.outcome.debug_console.decode(errors="replace")

    @property
    def summary(self) -> str:
        """How it went, in a few words."""
        outcome = self.outcome
        if outcome.handoff is None:
            return f"the handoff was not reached: {describe_stop(outcome.run.stop)}{cost_text(outcome.run.counts)}"
        met = finding_lines(outcome.findings, verbose=False)[0].removeprefix("check: ")
        return f"handoff{cost_text(outcome.handoff.counts)}; {met}"

    def __repr__(self) -> str:
        return f"<boot of {subject_text(self.plan, self.outcome.blob)}: {self.summary}>"

    def __str__(self) -> str:
        outcome = self.outcome
        subject = f"{subject_text(outcome.plan, outcome.blob)}, engine {outcome.engine}"
        return f"{subject}\n{outcome_text(outcome, False, self.diagnosis)}"

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        show_text(self, printer, cycle)

    def _repr_html_(self) -> str:
        from ..html.boot import boot_html

        return boot_html(self)
