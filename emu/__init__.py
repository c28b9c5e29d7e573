"""The machine around the CPU, the engines that execute it, and the check of the handoff."""

import time

IMPORTED_NS = time.monotonic_ns()  # when the command, or a program that uses this package, came to it
