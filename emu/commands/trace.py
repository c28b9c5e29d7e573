"""`pvhboot trace`: one boot, told instruction by instruction."""

import argparse
import re
import sys
from collections.abc import Callable
from typing import IO, Final

from pvhboot.shim.errors import BootError

from ..choice import choose
from ..complaint import complain
from ..effects import EFFECTS, LOAD, STORE
from ..engines.names import KVM
from ..inputs import open_kernel
from ..outputs import write_files
from ..places import Places
from ..report.subject import subject_text
from ..report.trace_text import end_text, record_text
from ..session import Outcome, boot, get_engine
from ..trace import End, Record, Tracer, Window
from ..trace_file import header_of, to_line
from .common import cache_from, firmware_from, inputs_of, limits_from, plan_on, recording_from, require_registers, until_from

ONLY: Final = "--only"
_ADDRESS: Final = re.compile("0x[0-9a-f]{1,16}", re.IGNORECASE)  # linear: of 64 bits

_Write = Callable[[str], object]


def run(arguments: argparse.Namespace) -> int:
    """0 if the run ended as asked, or where the trace was to end, else 1; 1, too, if it never came to where it was to begin."""
    _require_sense(arguments)
    until, limits, recording = until_from(arguments), limits_from(arguments), recording_from(arguments)
    blob, engine = firmware_from(arguments), get_engine(arguments.engine)
    with open_kernel(arguments.kernel, cache_from(arguments)) as kernel:
        plan = plan_on(arguments, kernel, blob.data, engine, recording)
        places = Places(plan, blob)
        window = _window(arguments, places)

        def traced(write: _Write, *, as_json: bool) -> tuple[Outcome, Tracer]:
            def begin() -> str:
                if not as_json:
                    return f"{subject_text(plan, blob)}, engine {engine.name}\n"
                sees_memory, filters = tracer.sees_memory, _filters(arguments)
                return to_line(header_of(plan, blob, engine.name, sees_memory=sees_memory, filters=filters))

            tracer = Tracer(places, _sink(write, begin, to_line if as_json else _text_line), window)
            return boot(plan, blob, engine, until, limits, recording=recording, watchers=[tracer]), tracer

        if arguments.output is None:
            outcome, tracer = traced(sys.stdout.write, as_json=arguments.json)
            if tracer.instructions and not tracer.written:
                complain(f"none of the {tracer.instructions} instructions is what was asked for")
        else:
            outcome, tracer = _written(arguments, traced)
            print(f"{arguments.output}: {tracer.written} of {tracer.instructions} instructions; end: {end_text(tracer.end)}")
    if not tracer.opened:
        complain(f"--from {arguments.begin}: the run never came there, so there is nothing to tell")
        return 1
    return 0 if outcome.ended_as_asked or tracer.closed else 1


def _require_sense(arguments: argparse.Namespace) -> None:
    if arguments.json and arguments.output is not None:
        raise BootError("--json is for the standard output: --output writes JSON Lines without it")
    if arguments.text and arguments.output is None:
        raise BootError("--text is for --output: the standard output is text without it")
    if arguments.limit is not None and arguments.limit < 1:
        raise BootError(f"--limit {arguments.limit}: give a number above 0")
    for word in arguments.only:
        if arguments.engine == KVM and EFFECTS[word][0] in (LOAD, STORE):
            raise BootError(f"{ONLY} {word}: the engine kvm does not see loads and stores: use --engine unicorn")


def _written(arguments: argparse.Namespace, traced: Callable[..., tuple[Outcome, Tracer]]) -> tuple[Outcome, Tracer]:
    """Runs it, with its output going to --output, which is there in the end only if all went well."""
    runs: list[tuple[Outcome, Tracer]] = []

    def write_trace(file: IO[bytes]) -> None:
        runs.append(traced(lambda text: file.write(text.encode(errors="backslashreplace")), as_json=not arguments.text))

    write_files([(arguments.output, write_trace)], inputs_of(arguments))
    return runs[0]


def _sink(write: _Write, begin: Callable[[], str], line: Callable[[Record | End], str]) -> Callable[[Record | End], None]:
    """Writes the items, and in front of the first one what `begin` gives then."""
    begun = False

    def sink(item: Record | End) -> None:
        nonlocal begun
        if not begun:
            write(begin())
        begun = True
        write(line(item))

    return sink


def _text_line(item: Record | End) -> str:
    return f"{record_text(item)}\n" if isinstance(item, Record) else f"end: {end_text(item)}\n"


def _window(arguments: argparse.Namespace, places: Places) -> Window:
    require_registers(arguments.changes, "--changes")
    for symbol in arguments.symbol:
        places.find(symbol)
    wanted = choose(arguments.mode, arguments.symbol, arguments.changes, arguments.only)
    begin, end = (
        frozenset[int]() if text is None else _addresses(text, option, places)
        for text, option in ((arguments.begin, "--from"), (arguments.end, "--to"))
    )
    return Window(begin, end, arguments.limit, wanted)


def _addresses(text: str, option: str, places: Places) -> frozenset[int]:
    """Those of a label of the firmware or a symbol of the kernel, or a linear address."""
    if not text[:1].isdigit():
        return places.find_all(text)
    if not _ADDRESS.fullmatch(text):
        raise BootError(f"cannot read {option} {text!r}: write a label, a kernel's symbol, or an address as 0xfffffff0")
    return frozenset((int(text, 16),))


def _filters(arguments: argparse.Namespace) -> tuple[str, ...]:
    """What chooses among the instructions in the window."""
    chosen = ((ONLY, arguments.only), ("--mode", arguments.mode), ("--symbol", arguments.symbol))
    return tuple(f"{option} {value}" for option, values in (*chosen, ("--changes", arguments.changes)) for value in values)
