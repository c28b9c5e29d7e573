"""The clauses of the check, in its order."""

from collections.abc import Mapping
from typing import Final

from .boot_clauses import BOOT_CLAUSES
from .cpu_clauses import CPU_CLAUSES
from .subject import Clause

# In the order of the walk: the CPU, then what %ebx leads to, then memory.
CLAUSES: Final[Mapping[str, Clause]] = {**CPU_CLAUSES, **BOOT_CLAUSES}
