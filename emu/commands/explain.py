"""`pvhboot explain`: one boot, told as a story."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pvhboot.shim.errors import BootError

from ..engines.base import Engine, Limits, Until
from ..explain.told import Chapter, Story
from ..inputs import open_kernel, read_sources
from ..reasons import HANDOFF
from ..session import get_engine
from .common import cache_from, firmware_from, limits_from, plan_on, recording_from

if TYPE_CHECKING:
    from pvhboot.loader.recording import Recording

    from ..diagnosis import Diagnosis
    from ..recorded import Recorded


def run(arguments: argparse.Namespace) -> int:
    """0 if the story comes to a clean handoff, else 1."""
    story = _story(arguments)
    chapters = _chosen(story, arguments.chapter)
    if arguments.json:
        _print_json(story, chapters, only_names=arguments.list)
    elif arguments.list:
        from ..explain.text import list_text

        print("\n".join(list_text(chapters)))
    else:
        from ..explain.text import painted, plain, story_text

        paint = painted if _is_coloured(arguments.color) else plain
        print("\n".join(story_text(story, chapters, paint)))
    return 0 if story.clean else 1


def _story(arguments: argparse.Namespace) -> Story:
    from ..explain.story import tell
    from ..recorded import INSTRUCTIONS, record_boot

    limits, recording = limits_from(arguments), recording_from(arguments)
    blob, engine = firmware_from(arguments), get_engine(arguments.engine)
    with open_kernel(arguments.kernel, cache_from(arguments)) as kernel:
        plan = plan_on(arguments, kernel, blob.data, engine, recording)
        most = limits.instructions or INSTRUCTIONS
        limits = limits._replace(instructions=None)  # which not every engine can count
        sources = read_sources(arguments.manifest, blob)
        recorded = record_boot(plan, blob, engine, limits, recording=recording, sources=sources, most=most)
        diagnosis = None if recorded.outcome.clean else _diagnosis(recorded, engine, limits, recording)
        return tell(recorded, recording, diagnosis)


def _diagnosis(recorded: "Recorded", engine: Engine, limits: Limits, recording: "Recording | None") -> "Diagnosis":
    """Why it failed: of the same boot, as far as it is told and no further."""
    from ..board import Board
    from ..diagnosis import diagnose

    outcome = recorded.outcome
    limits = limits._replace(instructions=outcome.run.counts.get("instructions"))  # each round of a rep is one
    board = Board(outcome.plan, recording=recording)
    return diagnose(outcome, engine, Until(HANDOFF), limits, board, recording)


def _chosen(story: Story, wanted: Sequence[str]) -> Sequence[Chapter]:
    """The chapters of --chapter, in the order of the story; BootError for one that it does not have."""
    for word in wanted:
        if not any(word in (chapter.name, str(chapter.number)) for chapter in story.chapters):
            there = ", ".join(f"{chapter.number} {chapter.name}" for chapter in story.chapters)
            raise BootError(f"--chapter {word}: this boot has no such chapter; there is {there}")
    return [chapter for chapter in story.chapters if not wanted or {chapter.name, str(chapter.number)} & set(wanted)]


def _is_coloured(when: str) -> bool:
    if when == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return when == "always"


def _print_json(story: Story, chapters: Sequence[Chapter], *, only_names: bool) -> None:
    import json

    from ..explain.told import as_data

    told = [as_data(chapter) for chapter in chapters]
    if only_names:
        told = [{name: chapter[name] for name in ("number", "name", "title")} for chapter in told]
    print(json.dumps({**as_data(story), "chapters": told}, indent=1, ensure_ascii=False))
