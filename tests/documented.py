"""Runs what a page of the documentation shows, and compares what is printed with what the page says.

By hand: `python tests/documented.py docs/trace.md …`; without a page it tells what is not run, and why. The rules:
docs/contributing.md.
"""

import contextlib
import difflib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host import GUESTS, guest_problem, kvm_problem, qemu_problem
from initramfs import initramfs
from pages import ABOVE, EXCERPT, FILE, PYTHON, SESSION, SHELL, STATUS, TESTS, VARY, WRITE, Block, Page, page_of

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bench", "docs", "emu", "shim", "tests")  # of the checkout, as commands name them
_FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", *(name for name in _FILES if "/_" not in name)]  # what begins so is Sphinx's
_MADE = frozenset({"initrd.cpio", "root"})
_GUESTS_OF = {
    "vmlinux": "vmlinux-6.1",
    "vmlinuz": "vmlinuz-6.1",
    **{name: name for name in ("vmlinux-6.12", "vmlinuz-6.12", "xen-shim", "xen.gz")},
    **dict.fromkeys(_MADE, "busybox"),
}
SECONDS = 600  # for a block: to user space it is half a minute of a processor's
PATIENCE = 2 * SECONDS  # for a page
GAP = "…"
_NOT_INHERITED = ("PVHBOOT_", "XDG_", "PYTEST_", "FORCE_COLOR", "PY_COLORS")
_DONE = "\x1e"  # what the shell prints behind each command: this, the status, and this again
_PASSED = re.compile(r"(\d+) passed in \S+", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)+|0x[0-9a-f]+|\b(?=[a-f]*\d)[0-9a-f]{6,}\b|\d+")
_SHOWN_DIFFERENCE = 60  # lines


def page(name: str) -> Page:
    """A page by its path in the checkout."""
    return page_of(ROOT / name, name)


def missing(text: str) -> Iterator[str]:
    """Why these commands cannot be run here. What they need is known by their words."""
    words = _words(text)
    for name in sorted({_GUESTS_OF[word] for word in words & _GUESTS_OF.keys()}):
        if problem := guest_problem(name):
            yield problem
    if words & {"kvm", "compare", "pvh_engine"} and (problem := kvm_problem()):
        yield problem
    if words & {"qemu", "qemu-system-x86_64", "qemu-system-i386", "compare", "record", "bench", "pvh_engine"} and (
        problem := qemu_problem()
    ):
        yield problem
    if "gdb" in words and shutil.which("gdb") is None:
        yield "no gdb"
    yield from (f"no {rom}" for rom in sorted(set(re.findall(r"/usr/share/[\w./-]+", text))) if not Path(rom).exists())


def furnished(directory: Path, text: str) -> tuple[Path, Path]:
    """A place for commands, with what they find there as far as it is here, and a home. The guests are copies: a page may well
    write to them."""
    home, work = directory / "home", directory / "page"
    home.mkdir()
    work.mkdir()
    for name in _words(text) & _GUESTS_OF.keys() - _MADE:
        if (guest := GUESTS / _GUESTS_OF[name]).is_file():
            shutil.copy2(guest, work / name)
    if (busybox := GUESTS / "busybox").is_file():
        (work / "root/bin").mkdir(parents=True)
        shutil.copy2(busybox, work / "root/bin/busybox")
        (work / "initrd.cpio").write_bytes(initramfs(busybox))
    for folder in FOLDERS:
        (work / folder).symlink_to(ROOT / folder)
    return work, home


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]+", text))


def untruths(page: Page, directory: Path, home: Path) -> list[str]:
    """Runs a page in a directory that is furnished, from top to bottom, and says what is not as it is shown."""
    return page.problems or list(_Run(page, directory, home).untruths())


def share(number: int, of: int = 3) -> list[str]:
    """A share of the pages of docs/ on which something is run: each module of tests is a process's under pytest-xdist."""
    return [name for name in PAGES[1:] if page(name).commands or page(name).problems][number::of]


def check(name: str, directory: Path) -> None:
    """Fails with all that is untrue on a page, which is run in the directory; skips with the reason where it cannot be run."""
    shown = page(name)
    if problems := list(missing(shown.commands)):
        pytest.skip("; ".join(problems))
    told = untruths(shown, *furnished(directory, shown.commands))
    shutil.rmtree(directory)  # kernels, traces: there are many pages
    if told:
        pytest.fail("\n\n".join(told), pytrace=False)


class _Run:
    """A page, as it is run."""

    def __init__(self, page: Page, directory: Path, home: Path) -> None:
        self._page, self._directory = page, directory
        self._names: dict[str, Any] = {"__name__": "__page__"}
        self._printed = ""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        self._environment = {name: text for name, text in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        self._environment |= {"PATH": path, "HOME": str(home), "LC_ALL": "C.UTF-8"}
        self._environment |= {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}

    def untruths(self) -> Iterator[str]:
        last_tests = [block for block in self._page.blocks if block.kind == TESTS][-1:]
        runs: dict[str | None, Callable[[Block], Iterator[str]]] = {
            FILE: self._file,
            SHELL: self._shell,
            SESSION: self._session,
            EXCERPT: self._excerpt,
            PYTHON: self._python,
        }
        for block in self._page.blocks:
            run = runs.get(block.kind, self._tests if block in last_tests else None)
            if run is not None:
                yield from (f"{self._page.name}:{block.line}: {told}" for told in run(block))

    def _file(self, block: Block) -> Iterator[str]:
        path = self._directory / block.notes[WRITE]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        yield from ()

    def _shell(self, block: Block) -> Iterator[str]:
        status, self._printed = self._bash(block.text, "-euo", "pipefail")
        if status != int(block.notes.get(STATUS, 0)):
            yield f"status {status}:\n{_indented(self._printed)}"

    def _session(self, block: Block) -> Iterator[str]:
        commands = list(_commands(block.text))
        script = "".join(f"{command}\nprintf '{_DONE}%d{_DONE}' $?\n" for command, _ in commands)
        _, text = self._bash(script)
        *told, rest = text.split(_DONE)
        statuses = [int(status) for status in block.notes.get(STATUS, "0").split()]
        if len(statuses) == 1:
            statuses *= len(commands)
        if len(statuses) != len(commands):
            yield f"{len(commands)} commands, and {len(statuses)} statuses"
            return
        self._printed = "".join(told[::2]) + rest
        for at, ((command, shown), expected) in enumerate(zip(commands, statuses, strict=True)):
            if 2 * at >= len(told):
                yield f"$ {command}\ndid not end:\n{_indented(rest)}"
                return
            printed, status = told[2 * at : 2 * at + 2]
            wrong = [f"status {status}, not {expected}"] if int(status) != expected else []
            if difference := difference_of(shown, printed, vary=VARY in block.notes):
                wrong.append(difference)
            if wrong:
                yield "\n".join([f"$ {command}", *wrong])

    def _excerpt(self, block: Block) -> Iterator[str]:
        if difference := difference_of(f"{GAP}\n{block.text}{GAP}\n", self._printed, vary=VARY in block.notes):
            yield f"not {ABOVE}\n{difference}"

    def _python(self, block: Block) -> Iterator[str]:
        told = io.StringIO()
        code = "\n" * block.line + block.text
        with (
            contextlib.chdir(self._directory),
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(told),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", ResourceWarning)  # as Python does where no test runs it
            try:
                exec(compile(code, self._page.name, "exec"), self._names)
            except Exception:
                yield traceback.format_exc()
        self._printed = told.getvalue()

    def _tests(self, block: Block) -> Iterator[str]:  # noqa: ARG002 - the last one, and with it all
        source = "\n\n".join(block.text for block in self._page.blocks if block.kind == TESTS)
        (self._directory / "test_page.py").write_text(source)
        status, self._printed = self._bash(f"{sys.executable} -m pytest -q -p no:cacheprovider test_page.py")
        passed = _PASSED.match(self._printed.splitlines()[-1])
        if status or not passed or int(passed[1]) < len(re.findall(r"^\s*def test_", source, re.MULTILINE)):
            yield f"its tests:\n{_indented(self._printed)}"

    def _bash(self, script: str, *options: str) -> tuple[int, str]:
        """The status of a script and all that it prints, in order. Nothing that it has started outlives it."""
        with tempfile.TemporaryFile() as file:
            process = subprocess.Popen(
                ["bash", *options, "-c", script],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                status = -signal.SIGKILL
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            file.seek(0)
            return status, file.read().decode(errors="replace").replace("\r\n", "\n")


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a session, each with what is shown of its output."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        end = next(at for at, line in enumerate(lines, 1) if not line.endswith("\\\n"))
        yield "".join(lines[:end]).removesuffix("\n"), "".join(lines[end:])


def difference_of(shown: str, printed: str, *, vary: bool = False) -> str | None:
    """How what is shown differs from what was printed; None if it does not. A line with nothing but GAP stands for any lines, a
    GAP in a line for any text; with `vary` a number is like any other, as are any blanks."""

    def plain(text: str) -> list[str]:
        lines = [re.sub(" {2,}", " ", _NUMBER.sub("#", line)) if vary else line for line in text.splitlines()]
        return "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n")

    lines = plain(printed)
    at = 0
    *parts, last = _parts(plain(shown))
    for number, part in enumerate(parts):
        places = range(at, len(lines) + 1) if number else range(1)
        found = next((place for place in places if _fit(part, lines, place) == len(part)), None)
        if found is None:
            return _diff(part, lines, places)
        at = found + len(part)
    end = len(lines) - len(last)
    if end < at or (end > at and not parts) or _fit(last, lines, end) < len(last):
        return _diff(last, lines, range(at, len(lines) + 1) if parts else range(1))
    return None


def _parts(shown: list[str]) -> list[list[str]]:
    """What stands between the lines with nothing but a GAP."""
    parts: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == GAP:
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def _fit(part: list[str], lines: list[str], at: int) -> int:
    """How many lines of a part are those from there on."""
    pairs = zip(part, lines[at:], strict=False)
    return sum(re.fullmatch(".*".join(map(re.escape, line.split(GAP))), other) is not None for line, other in pairs)


def _diff(part: list[str], lines: list[str], places: range) -> str:
    """A part that is not at one of these places, beside what comes nearest to it."""
    best = max(places, key=lambda place: _fit(part, lines, place))
    near = lines[best : best + len(part) + 1] if _fit(part, lines, best) else lines[places[0] :]
    diff = list(difflib.unified_diff(part, near, "shown", "printed", lineterm="", n=2))
    more = [f"and {len(diff) - _SHOWN_DIFFERENCE} more lines"] if len(diff) > _SHOWN_DIFFERENCE else []
    return "\n".join([*diff[:_SHOWN_DIFFERENCE], *more])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _by_hand(names: list[str]) -> int:
    told = []
    for name in names:
        shown = page(os.path.relpath(name, ROOT))
        with tempfile.TemporaryDirectory() as directory:
            told += untruths(shown, *furnished(Path(directory), shown.commands))
    if not names:
        told = [excuse for name in PAGES for excuse in page(name).excuses]
    print("\n\n".join(told))
    return 1 if names and told else 0


if __name__ == "__main__":
    sys.exit(_by_hand(sys.argv[1:]))
