"""What a cold `pvhboot boot` of the conformance guest costs under Unicorn, and where the time goes.

Runs each step in a process of its own, interleaved, and prints medians with their spread: the bare interpreter, with the
imports of each library, and the whole command. Deterministic counts come with it. Times are of this machine and noisy.
"""

import json
import statistics
import subprocess
import sys
import time

RUNS = 15
STEPS = {
    "bare interpreter": "pass",
    "+ argparse": "import argparse",
    "+ pvhboot, no engine": "import pvhboot.emu.cli, pvhboot.emu.commands.boot",
    "import elftools": "import elftools.elf.elffile",
    "import unicorn": "import unicorn, unicorn.x86_const",
    "pvhboot boot --json": "import sys; from pvhboot.emu.cli import main; sys.exit(main(['boot', '--json']))",
}


def run(code: str) -> tuple[float, str]:
    """Milliseconds of one process, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return (time.perf_counter() - start) * 1000, done.stdout


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    out = ""
    for _ in range(RUNS):
        for name, code in STEPS.items():
            spent, out = run(code)
            times[name].append(spent)
    print(f"{'step':<24}{'median ms':>10}{'min':>8}{'max':>8}")
    for name, values in times.items():
        print(f"{name:<24}{statistics.median(values):>10.1f}{min(values):>8.1f}{max(values):>8.1f}")
    data = json.loads(out)
    print(f"to the handoff: {data['counts']['handoff']}; to the end: {data['counts']['end']}")


if __name__ == "__main__":
    main()
