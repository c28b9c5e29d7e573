"""What a change has led to, in one word each; docs/vary.md defines them."""

from typing import Final, NamedTuple

from ..check import VIOLATED
from ..engines.base import describe_stop
from ..reasons import HALT
from ..session import Outcome

SAME: Final = "same"  # the kernel is handed the same machine
PANIC: Final = "panic"  # the firmware has said something new, and has stopped
CHECK: Final = "check"  # the check names a clause that the unchanged boot meets
TEST: Final = "test"  # the test command has failed
ENDED: Final = "ended"  # a fault, a halt without a word, a reset, or a limit
WARNED: Final = "warned"  # the firmware has said something new, and has gone on
SILENT: Final = "SILENT"  # the kernel is handed another machine, and nobody has noticed
WORDS: Final = (PANIC, CHECK, TEST, ENDED, WARNED, SAME, SILENT)


class Verdict(NamedTuple):
    """A word, what was seen of it, the linear address at which the run ended if not at the handoff, and what the kernel would
    have noticed."""

    word: str
    detail: str
    ended_at: int | None = None
    effects: tuple[str, ...] = ()


def judge(before: Outcome, after: Outcome, effects: tuple[str, ...]) -> Verdict:
    """The outcome with a change, by that without, which has got to the handoff. `effects` is what differs between the two
    there."""
    said = _said(before, after)
    stop = after.run.stop
    if after.handoff is None:
        if stop.reason == HALT and said:
            return Verdict(PANIC, said, stop.rip)
        return Verdict(ENDED, describe_stop(stop), stop.rip)
    met = {finding.clause for finding in before.findings if finding.status != VIOLATED}
    broken = [finding for finding in after.findings if finding.status == VIOLATED and finding.clause in met]
    if broken:
        details = "; ".join(f"{finding.clause}: {finding.detail}" for finding in broken)
        return Verdict(CHECK, details, effects=effects)
    if said and effects:
        return Verdict(WARNED, said, effects=effects)
    if effects:
        return Verdict(SILENT, "; ".join(effects), effects=effects)
    return Verdict(SAME, said)


def _said(before: Outcome, after: Outcome) -> str:
    """The last line of what only the changed boot has said: on the debug console, on COM1, or by a POST code."""
    for was, now in ((before.debug_console, after.debug_console), (before.console, after.console)):
        lines = now.decode(errors="replace").split("\n")
        new = [line for line in lines if line.strip() and line not in was.decode(errors="replace").split("\n")]
        if new:
            return new[-1].strip()
    codes = [code for code in after.post_codes if code not in before.post_codes]
    return f"POST code {codes[-1]:#04x}" if codes else ""
