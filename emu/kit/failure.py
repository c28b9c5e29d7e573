"""What is told of a machine when a test has failed: why, where it stood, what it did last; and the files that say the rest."""

import errno
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from pvhboot.loader.memory import ReadableMemory

from ..board import Board
from ..causes.scene import Cause, scene_of
from ..causes.table import likely_causes
from ..diagnosis import watcher
from ..engines.base import Cpu, Run, Stop, Watcher, describe_stop
from ..machine import Machine
from ..reasons import LIMIT, PAUSED
from ..recent import History
from ..report.as_json import outcome_to_json
from ..report.causes import cause_lines, executed_lines
from ..report.said import last_lines, post_codes_text
from ..report.state import state_text
from ..report.subject import subject_text
from ..report.text import cost_text, plan_text
from ..session import Outcome
from ..trace import End, Record, Tracer
from ..trace_file import header_of, to_line
from .differences import access_text
from .replay import WATCHED, replayed
from .standing import Standing
from .values import Registers

TRACE: Final = "trace.jsonl"
_INSTRUCTIONS: Final = 16  # that are shown
_ACCESSES: Final = 8
_CONSOLE_LINES: Final = 8


class Telling(NamedTuple):
    """What is found by doing it again: `history`, `causes`, whether it went the same way, and if it was cut short, after how
    many instructions; `memory` as it was left. `standing`: where an end was found again that the CPU had run past."""

    history: History = History()
    causes: Sequence[Cause] = ()
    same_way: bool = True
    cut: int | None = None
    memory: ReadableMemory | None = None
    standing: Standing | None = None


def tell(machine: Machine, directory: Path, *, trace: bool) -> list[str]:
    """Writes the files of a machine into the directory, with a trace or without one, and gives the lines of the report. These
    are told, too, where no files can be."""
    standing = machine.failed or machine.standing()
    problem = _problem_with(directory)
    with ExitStack() as opened:
        telling = _look(machine, standing, directory / TRACE if trace and not problem else None, opened)
        standing = telling.standing or standing
        lines = _lines(machine, standing, telling)
        brief = _lines(machine, standing, telling, brief=True) if _is_healthy(machine, standing) else lines
    if problem:
        return [*brief, f"no files: {problem}"]
    write_files(machine, standing, directory, lines)
    return [*brief, f"files: {directory}"]


def _problem_with(directory: Path) -> str:
    """Makes it, without the trace of another run; why that is not possible, or files in it are not."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / TRACE).unlink(missing_ok=True)
    except OSError as error:
        return f"{directory}: {error.strerror}"
    return "" if os.access(directory, os.W_OK, effective_ids=True) else f"{directory}: {os.strerror(errno.EACCES)}"


def _is_healthy(machine: Machine, standing: Standing) -> bool:
    """It stands at the kernel's entry, and the test has not found anything wrong with that: how the CPU came there is not what
    has to be told first."""
    view = standing.handoff
    return standing.stop is None and view is not None and not view.refused and _ip(standing) == machine.plan.entry


def _ip(standing: Standing) -> int | None:
    if standing.stop is not None and standing.stop.rip is not None:
        return standing.stop.rip
    return standing.registers.get("eip") if standing.point is None else standing.point.ip


def _look(machine: Machine, standing: Standing, trace: Path | None, opened: ExitStack) -> Telling:
    if standing.point is None:
        return Telling()
    recent = watcher(machine.plan, machine.blob, standing.point.instructions)
    watchers: list[Watcher] = [recent]
    if trace is not None:
        file = opened.enter_context(trace.open("w", encoding="utf-8"))
        header = header_of(machine.plan, machine.blob, machine.engine, sees_memory=machine.cpu.sees_memory)
        file.write(to_line(header))
        watchers.append(Tracer(machine.places, lambda item: _write(file, item)))
    cpu, board = opened.enter_context(replayed(machine.setup, standing, watchers))
    same = (cpu.linear_ip(), cpu.registers()) == (standing.point.ip, standing.registers)
    found = None
    if not same and standing.point.instructions is None and standing.stop is not None and cpu.stop == standing.stop:
        same, found = True, _at_the_end(standing, cpu)
    if standing.stop is not None:
        cpu.end(standing.stop)
    counted = standing.point.instructions
    cut = not same and (cpu.instructions >= WATCHED[machine.engine] if counted is None else cpu.instructions < counted)
    history = recent.history()
    causes = _causes(cpu, board, machine, standing, history) if same or cut else []
    return Telling(history, causes, same, cpu.instructions if cut else None, board.memory, found)


def _at_the_end(standing: Standing, cpu: Cpu) -> Standing:
    """Uncounted, unicorn goes on from the access that ends a run to the next jump: where it was when it ended."""
    assert standing.point is not None
    point = standing.point._replace(ip=cpu.linear_ip())
    return standing._replace(point=point, registers=Registers(cpu.registers()), segments=cpu.segments())


def _write(file: TextIO, item: Record | End) -> None:
    file.write(to_line(item))


def _causes(cpu: Cpu, board: Board, machine: Machine, standing: Standing, history: History) -> list[Cause]:
    """Of a run that has come to an end, or of a handoff that was found wanting: what a test finds amiss otherwise is nothing
    that a rule could know."""
    view = standing.handoff
    if standing.stop is None and (view is None or not view.refused):
        return []
    handoff, findings = (None, ()) if view is None else (view.handoff, view.findings)
    causes = likely_causes(scene_of(cpu, board, machine.blob, history=history, handoff=handoff, findings=findings))
    if standing.stop is None and view is not None:
        return [cause for cause in causes if not view.refused.isdisjoint(cause.clauses)]
    return causes


def _lines(machine: Machine, standing: Standing, telling: Telling, *, brief: bool = False) -> list[str]:
    """`brief`: without CPU and instructions."""
    lines = [f"{subject_text(machine.plan, machine.blob)}, engine {machine.engine}"]
    for cause in telling.causes[:1]:
        lines += ["", *cause_lines(cause, _heading(cause, standing))]
    lines += ["", _end(machine, standing)]
    if not brief:
        state = state_text(standing.registers, standing.segments, telling.memory if telling.same_way else None)
        lines += [*(f"  {line}" for line in state), *_instruction_lines(standing, telling)]
    lines += _access_lines(standing)
    for name, text in (("debug console", standing.debug_console), ("console", standing.console)):
        if text:
            lines += ["", f"the {name}'s last lines:", *(f"  {line}" for line in last_lines(text, _CONSOLE_LINES))]
    if standing.post_codes:
        lines += ["", post_codes_text(standing.post_codes)]
    return [*lines, ""]


def _heading(cause: Cause, standing: Standing) -> str:
    """What a clause of the check says was wrong at the handoff need not be why the test has failed later."""
    view = standing.handoff
    if not cause.clauses or view is None or view.refused:
        return "likely cause"
    return "amiss at the handoff, which may have to do with it or not"


def _end(machine: Machine, standing: Standing) -> str:
    how = "it stands" if standing.stop is None else f"end: {describe_stop(standing.stop)};"
    ip = _ip(standing)
    if ip is None:
        return how.rstrip(";")
    place = machine.places.locate(ip)
    to_handoff = None
    if standing.handoff is not None and standing.point is not None and standing.point.instructions is None:
        to_handoff = standing.handoff.instructions
    return f"{how} at {ip:#x}" + (f", {place}" if place else "") + cost_text(standing.counts, to_handoff=to_handoff)


def _instruction_lines(standing: Standing, telling: Telling) -> list[str]:
    stopped_by_limit = standing.stop is not None and standing.stop.reason == LIMIT
    if telling.cut is not None and not stopped_by_limit:
        return ["", f"the last instructions are not known: done again, it had not come there after {telling.cut} instructions"]
    if not telling.same_way and telling.cut is None:
        return ["", "the last instructions are not known: done again, the boot went another way"]
    executed = telling.history.executed[-_INSTRUCTIONS:]
    if telling.cut is not None and all(one.address != _ip(standing) for one in executed):
        return ["", f"the last instructions are not known: instruction {telling.cut}, to which it was done again, is elsewhere"]
    if not executed:
        return []
    cut = "" if telling.cut is None else f", done again up to instruction {telling.cut}"
    what = "instruction" if len(executed) == 1 else f"{len(executed)} instructions"
    return ["", f"the last {what}{cut}:", *(f"  {line}" for line in executed_lines(executed))]


def _access_lines(standing: Standing) -> list[str]:
    """The last ones, those that are the same and follow one another as one."""
    groups = [(access, len(list(same))) for access, same in groupby(standing.accesses)][-_ACCESSES:]
    if not groups:
        return []
    count = sum(times for _, times in groups)
    lines = ["", f"the last {count} of {len(standing.accesses)} accesses to devices:"]
    return lines + [f"  {access_text(access)}" + (f", {times} times" if times > 1 else "") for access, times in groups]


def write_files(machine: Machine, standing: Standing, directory: Path, lines: Sequence[str]) -> None:
    """The lines of the report, the outcome, the ROM, the plan, consoles, accesses."""
    view = standing.handoff
    outcome = Outcome(
        plan=machine.plan,
        blob=machine.blob,
        engine=machine.engine,
        run=Run(
            standing.stop or Stop(PAUSED, "", None if standing.point is None else standing.point.ip),
            standing.registers,
            standing.counts,
            standing.segments,
        ),
        handoff=None if view is None else view.handoff,
        tables=None if view is None else view.tables,
        findings=() if view is None else view.findings,
        ended_as_asked=False,
        console=standing.console.encode(),
        debug_console=standing.debug_console.encode(),
        post_codes=standing.post_codes,
        accesses=standing.accesses,
        memory=None,
    )
    texts = {
        "report.txt": "\n".join(lines).rstrip(),
        "outcome.json": json.dumps(outcome_to_json(outcome), indent=2),
        "memory-map.txt": plan_text(machine.plan),
        "accesses.txt": "\n".join(map(access_text, standing.accesses)),
        "console.txt": standing.console,
        "debug-console.txt": standing.debug_console,
    }
    for name, text in texts.items():
        (directory / name).write_text(text + "\n" if text and not text.endswith("\n") else text, encoding="utf-8")
    (directory / "firmware.bin").write_bytes(machine.plan.rom)
