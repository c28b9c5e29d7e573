"""The reference of the command line, from what parses it."""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from pvhboot.emu.arguments.boots import BOOTS
from pvhboot.emu.arguments.files import FILES
from pvhboot.emu.arguments.lessons import LESSONS

from .markdown import block, code, table


class _About(NamedTuple):
    """What the parser does not know of a subcommand: its page, and when it exits with 0 and with 1."""

    page: str
    good: str
    bad: str = ""


# Of each that there is: one that is missing here is an error.
_ABOUT: Final[Mapping[str, _About]] = {
    "boot": _About(
        "../howto-test.md",
        "the run ended as asked, the handoff is clean, `--sanitize` found nothing, and a replay went as its transcript says",
        "one of these is not so",
    ),
    "compare": _About(
        "../check.md",
        "the handoff is clean on each engine, and the same on all that ran",
        "it is not; or no engine has run",
    ),
    "timeline": _About("../timeline.md", "each engine came to the mark of `--until`", "one did not"),
    "bench": _About("../timeline.md", "at least one row was booted", "none was"),
    "trace": _About(
        "../trace.md",
        "the run ended as asked, or where the trace was to end",
        "it did not; or it never came to where the trace was to begin",
    ),
    "diff": _About("../trace.md", "the traces are the same", "they part"),
    "vary": _About("../vary.md", "every change was noticed, or had no effect", "one was not noticed"),
    "build": _About("../firmware.md", "the files are written"),
    "plan": _About("../placement.md", "there is such a plan"),
    "inspect": _About("../loaders.md", "the file can be booted by PVH", "it cannot"),
    "coverage": _About("../coverage.md", "as much is covered as `--fail-under` asks for", "less is"),
    "record": _About("../replay.md", "the recording is written"),
    "guests": _About("../guests.md", "the guests are written, or listed"),
    "extract": _About("../kernels.md", "the kernel is written"),
    "note": _About("../kernels.md", "the kernel is written"),
    "initrd": _About("../kernels.md", "the initramfs is written"),
    "explain": _About("../explain.md", "the kernel's first instruction was reached, and the handoff is clean", "it was not"),
    "report": _About(
        "../report.md", "the run ended as asked, and the handoff is clean", "it is not; the page is written all the same"
    ),
    "lab": _About(
        "../lab.md", "of `lab check`: nothing is wrong any more; else: it is done", "of `lab check`: something is wrong"
    ),
}
_GROUPS: Final = {
    "Boots, and what they tell": BOOTS,
    "Files": FILES,
    "To learn from": LESSONS,
}


def reference(_argument: str) -> str:
    """All subcommands, by group."""
    lines: list[str] = []
    for title, commands in _GROUPS.items():
        lines += [f"## {title}", ""]
        lines += [f"- [{code(name)}](#pvhboot-{name}): {command.does}" for name, command in commands.items()]
        lines.append("")
        for name, command in commands.items():
            parser = argparse.ArgumentParser(prog=f"pvhboot {name}", add_help=False)
            command.add(parser)
            lines += _one(name, command.description, parser)
    return "\n".join(lines)


def _one(name: str, description: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    about = _ABOUT[name]
    yield from (
        f"### `pvhboot {name}`",
        "",
        f"{_plain(description)} More: [{about.page.removeprefix('../')}]({about.page}).",
        "",
    )
    yield from _arguments(f"pvhboot {name}", parser)
    bad = f"; 1: {about.bad}" if about.bad else ""
    yield from (f"Exit status: 0: {about.good}{bad}; 2: bad input.", "")


def _arguments(prog: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    actions = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    steps = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
    usage = [prog, *(_usage(action) for action in actions if action.required or not action.option_strings)]
    optional = any(not action.required and action.option_strings for action in actions)
    yield block([" ".join([*usage, *(["[OPTION …]"] if optional else []), *([str(steps.metavar)] if steps else [])])])
    yield ""
    for group in parser._mutually_exclusive_groups:
        names = " or ".join(code(_flags(action)[0]) for action in group._group_actions)
        yield from (f"Either {names} {'has to' if group.required else 'may'} be given.", "")
    if actions:
        yield table(("argument", "meaning"), ((_named(action), _meaning(action)) for action in actions))
        yield ""
    if steps is not None:
        helps = {choice.dest: choice.help or "" for choice in steps._choices_actions}
        for step, under in steps.choices.items():
            yield from (f"#### `{prog} {step}`", "", f"{helps[step][0].upper()}{helps[step][1:]}.", "")
            yield from _arguments(f"{prog} {step}", under)


def _flags(action: argparse.Action) -> list[str]:
    return list(action.option_strings) or [_value(action)]


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        return str(action.metavar)
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return action.dest.upper()


def _takes(action: argparse.Action) -> str:
    """What stands behind an option."""
    if action.nargs == 0:
        return ""
    return f" [{_value(action)}]" if action.nargs == "?" else f" {_value(action)}"


def _usage(action: argparse.Action) -> str:
    if action.option_strings:
        return action.option_strings[0] + _takes(action)
    value = _value(action)
    return {"?": f"[{value}]", "*": f"[{value} …]", "+": f"{value} …"}.get(str(action.nargs), value)


def _named(action: argparse.Action) -> str:
    if not action.option_strings:
        return code(_value(action))
    takes = "" if action.metavar is None and action.choices is not None else _takes(action)
    return code(", ".join(action.option_strings) + takes)


def _meaning(action: argparse.Action) -> str:
    default = "" if action.default is None else action.default
    text = (action.help or "") % {**vars(action), "default": default}
    if action.choices is not None and action.metavar is None:
        choices = ", ".join(code(str(each)) for each in action.choices)
        text = f"{choices}; {_plain(text)}" if text else choices
    else:
        text = _plain(text)
    return f"{text} (required)" if action.required and action.option_strings else text


def _plain(text: str) -> str:
    """Help, of which pages are links, and nothing else is taken for Markdown."""
    return re.sub(r"\bdocs/([\w-]+\.md)\b", r"[\1](../\1)", text.replace("<", "\\<").replace("*", "\\*"))


BLOCKS: Final[Mapping[str, Callable[[str], str]]] = {"cli": reference}
