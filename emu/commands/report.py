"""`pvhboot report`: a boot as an HTML file to be stepped through."""

import argparse

from pvhboot.loader.printable import one_line

from ..inputs import open_kernel, read_sources
from ..outputs import require_outputs, write_files
from ..progress import shown_words
from ..session import get_engine
from .common import cache_from, firmware_from, has_interrupts, inputs_of, limits_from, plan_on, recording_from, until_from


def run(arguments: argparse.Namespace) -> int:
    """0 if the run ended as asked with a clean handoff, else 1; the page is written either way."""
    inputs = inputs_of(arguments)
    require_outputs([arguments.output], inputs)
    until, limits, recording = until_from(arguments), limits_from(arguments), recording_from(arguments)
    blob, engine = firmware_from(arguments), get_engine(arguments.engine)
    from ..page.data import page_data, tell
    from ..page.render import render

    with open_kernel(arguments.kernel, cache_from(arguments)) as kernel:
        plan = plan_on(arguments, kernel, blob.data, engine, recording)
        with shown_words() as show:
            told = tell(
                plan,
                blob,
                engine,
                until,
                limits,
                recording=recording,
                sources=read_sources(arguments.manifest, blob),
                interrupts=has_interrupts(arguments, until.kind),
                progress=show,
            )
            data = page_data(told, recording)
            page = render(data)
    write_files([(arguments.output, page)], inputs)
    size = -(-len(page) // 1024)
    count = len(told.recorded.records)
    steps = "1 step" if count == 1 else f"{count} steps"
    print(f"{one_line(arguments.output)}: {steps}, {size} KiB; {data['verdict']}")
    return 0 if told.outcome.ok else 1
