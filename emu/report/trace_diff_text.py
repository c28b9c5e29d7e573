"""What two traces have in common, and where they part, as text for a person."""

from ..effects import Effect
from ..trace import End, Record
from ..trace_diff import Difference, TraceComparison
from ..trace_file import Header
from .trace_text import effect_text, end_text, record_text


def subject_lines(first: Header, second: Header) -> list[str]:
    """What is compared, and that it is not the same boot."""
    lines = [
        f"{word:<6} {header.kernel} on {header.machine}, firmware {header.firmware[:12]}, engine {header.engine}"
        + (f"; chosen by {', '.join(header.filters)}" if header.filters else "")
        for word, header in (("first", first), ("second", second))
    ]
    if first.sees_memory != second.sees_memory:
        blind = "second" if first.sees_memory else "first"
        lines.append(f"loads and stores are not compared: the engine of the {blind} does not see them")
    return lines


def comparison_lines(comparison: TraceComparison, *, of_accesses: bool) -> list[str]:
    """`of_accesses`: it is accesses that were compared and counted, not instructions."""
    one, many = ("access", "accesses") if of_accesses else ("instruction", "instructions")
    count = f"{comparison.same} {one if comparison.same == 1 else many}"
    lines = [
        f"not compared: what {record.text} gave at {record.place or hex(record.address)}, and what comes of it"
        for record in comparison.own
    ]
    if comparison.divergence is None:
        return [*lines, f"the same: {count}"]
    first, second, differences = comparison.divergence
    lines.append(f"the same for {count}, and then not:")
    lines += [f"       {record_text(record)}" for record in comparison.before]
    if isinstance(first, Record) and isinstance(second, Record) and record_text(first) == record_text(second):
        lines.append(f"both   {record_text(first)}")
    else:
        lines += [f"{word:<6} {_item_text(item)}" for word, item in (("first", first), ("second", second))]
    lines.append("what differs:")
    for difference in differences:
        lines += _difference_lines(difference)
    if comparison.own_reached:
        lines.append("what a processor says of itself has gone into the instruction before: the two may part here by right")
    return lines


def _item_text(item: Record | End | None) -> str:
    if isinstance(item, Record):
        return record_text(item)
    return "nothing more" if item is None else f"end: {end_text(item)}"


def _difference_lines(difference: Difference) -> list[str]:
    return [
        f"  {difference.what:<14} first   {_value_text(difference.first)}",
        f"  {'':<14} second  {_value_text(difference.second)}",
    ]


def _value_text(value: int | Effect | Record | End | None) -> str:
    if isinstance(value, int):
        return f"{value:#x}"
    if isinstance(value, Effect):
        return effect_text(value)
    if isinstance(value, Record):
        where = f"{value.bits}-bit, {value.address:#x}"
        return f"{value.text}  ({where}{f', {value.place}' if value.place else ''}, bytes {value.code.hex(' ')})"
    if isinstance(value, End):
        return end_text(value)
    return "nothing"
