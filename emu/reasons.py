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
