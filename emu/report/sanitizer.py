"""What the sanitizer has found, as text for a person."""

from collections.abc import Sequence

from pvhboot.loader.printable import one_line

from ..sanitizer import Trespass


def trespasses_text(found: Sequence[Trespass]) -> str:
    """A head line, and of each finding what happened, which instruction it was, and how often."""
    if not found:
        return "sanitizer: nothing found"
    lines = [f"sanitizer: {len(found)} finding{'' if len(found) == 1 else 's'}"]
    for trespass in found:
        lines.append(f"  {trespass.kind:<9}  {trespass.detail}")
        called = "" if trespass.caller is None else f", called at {trespass.caller}"
        again = "" if trespass.times == 1 else f"; {trespass.times} times, {trespass.start:#x}-{trespass.end - 1:#x}"
        where = f"{trespass.ip:#x}" if trespass.place is None else str(trespass.place)
        lines.append(f"             by {where}: {trespass.text}{called}{again}")
    return "\n".join(map(one_line, lines))
