"""Why a run ended: the words that devices, engines and reports share."""

from typing import Final

HANDOFF: Final = "handoff"  # the kernel's first instruction is next
CONSOLE: Final = "console"  # the text that was waited for has been printed
EXIT: Final = "exit"  # the guest wrote to the debug-exit port
RESET: Final = "reset"  # the guest asked for a reset
HALT: Final = "halt"  # hlt, and no interrupt that would end it
FAULT: Final = "fault"  # an exception that nobody handles, a triple fault, an instruction that the engine cannot execute
LIMIT: Final = "limit"
UNCLAIMED: Final = "unclaimed"  # an access that nobody answers, on a machine whose policy is to stop
DIVERGED: Final = "diverged"  # an access that the transcript, which is replayed, does not have there
PAUSED: Final = "paused"  # nothing has: a test has let it go no farther
LEFT: Final = "left"  # who sat at the console has
DEBUGGER: Final = "debugger"  # the gdb that drove the CPU has killed the guest, or gone away
INTERRUPTED: Final = "interrupted"  # Ctrl-C
