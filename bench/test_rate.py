"""How many tests a second boot the bare firmware and check its handoff, and where the time goes.

Each row is a pytest of its own, over tests that do one thing more than those of the row before; what pytest takes to start is
measured with one test and left out. What is measured is the time of a processor (of user and system), so that other work on
the machine counts for little; rows are interleaved, and the best of ROUNDS counts. The count of guest instructions, and a
digest of all that a machine holds at the handoff, are the same in each test of each process: that is checked.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = 1000
ROUNDS = 3
SETUP = "import pytest\n@pytest.fixture(scope='module')\ndef shared(pvh_module):\n    return pvh_module()\n"
ROWS = {
    "pytest: a test that does nothing": ("", "pass"),
    "a machine is built": ("pvh", "pvh()"),
    "it boots to the handoff": ("pvh", "pvh().run_until_handoff()"),
    "the handoff is checked": ("pvh", "pvh().run_until_handoff().check_abi()"),
    "the same on one machine, in a checkpoint": (
        "shared",
        "with shared.checkpoint():\n        shared.run_until_handoff().check_abi()",
    ),
}
DIGEST = """import hashlib
def test(pvh, n):
    m = pvh(memory="8M", append="console=ttyS0")
    h = m.run_until_handoff()
    ram = m.memory[0:8 << 20]
    seen = repr((h.registers, h.segments, h.start_info, m.io_log, h.instructions))
    with open("digests", "a") as file:
        print(hashlib.sha256(bytes(ram) + seen.encode()).hexdigest(), h.instructions, file=file)
"""


def run(directory: Path, source: str, tests: int) -> float:
    """Seconds of a processor that pytest takes over a module of so many tests."""
    module = directory / "test_it.py"
    generate = f"\ndef pytest_generate_tests(metafunc):\n    metafunc.parametrize('n', range({tests}))\n"
    module.write_text(source + generate)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull, str(module)]
    start = spent()
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return spent() - start


def spent() -> float:
    """Seconds of a processor that all processes have taken that were started from here."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        times: dict[str, list[float]] = {row: [] for row in ROWS}
        for _ in range(ROUNDS):
            for row, (fixture, body) in ROWS.items():
                source = f"{SETUP}def test({fixture}{', ' if fixture else ''}n):\n    {body}\n"
                start = run(directory, source, 1)
                times[row].append((run(directory, source, TESTS) - start) / (TESTS - 1))
        print(f"{'each test':<44}{'ms':>8}{'more':>8}{'a second':>10}")
        before = 0.0
        for row, values in times.items():
            best = min(values) * 1000
            print(f"{row:<44}{best:>8.2f}{best - before:>+8.2f}{1000 / best:>10.0f}")
            before = best
        for _ in range(2):
            run(directory, DIGEST, 50)
        seen = set((directory / "digests").read_text().splitlines())
        if len(seen) != 1:
            sys.exit(f"{len(seen)} different handoffs: {seen}")
        digest, instructions = seen.pop().split()
        print(f"all handoffs are the same to the byte: {instructions} instructions, sha256 {digest[:16]}…")


if __name__ == "__main__":
    main()
