"""Memento: what a graph of Python objects holds, kept, and put back in place.

A copy would not do: devices share objects with one another and with their board. So each container and each object that is
reached keeps its identity, and gets back what it held.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, Final

_VALUES: Final = (int, float, complex, str, bytes, type(None), type, range, BuiltinFunctionType, ModuleType, memoryview)


class Memento:
    """What lists, deques, dictionaries, sets, byte arrays and attributes hold that `roots` lead to, when this is made. What is
    in `fixed` is neither kept nor looked into. How far an iterator or a file has been read is not kept."""

    def __init__(self, roots: Iterable[object], fixed: Iterable[object] = ()) -> None:
        self._kept: list[tuple[Any, Any]] = []
        self._fixed = list(fixed)  # alive, so that no other object gets one's id
        seen = {id(item) for item in self._fixed}
        waiting = list(roots)
        while waiting:
            item = waiting.pop()
            if isinstance(item, _VALUES) or id(item) in seen:
                continue
            seen.add(id(item))
            waiting += self._keep(item)

    def _keep(self, item: Any) -> Iterator[object]:
        """Keeps what an object holds, and gives what that leads to."""
        if isinstance(item, bytearray):
            self._kept.append((item, bytes(item)))
            return iter(())
        if isinstance(item, list | deque | set):
            self._kept.append((item, tuple(item)))
            return iter(item)
        if isinstance(item, dict):
            self._kept.append((item, dict(item)))
            return iter((*item, *item.values()))
        if isinstance(item, tuple | frozenset):
            return iter(item)
        if isinstance(item, MethodType):
            return iter((item.__self__,))
        if isinstance(item, FunctionType):
            return iter(item.__closure__ or ())
        if isinstance(item, CellType):
            try:
                return iter((item.cell_contents,))
            except ValueError:  # a variable that has no value yet
                return iter(())
        attributes = getattr(item, "__dict__", None)
        slots = {name: getattr(item, name) for name in _slots(item) if hasattr(item, name)}
        if slots:
            self._kept.append((item, slots))
        return iter((*slots.values(), *(() if attributes is None else (attributes,))))

    def restore(self) -> None:
        """Puts all of it back."""
        for item, held in self._kept:
            if isinstance(item, bytearray | list):
                item[:] = held
            elif isinstance(item, deque):
                item.clear()
                item.extend(held)
            elif isinstance(item, set | dict):
                item.clear()
                item.update(held)
            else:
                for name, value in held.items():
                    object.__setattr__(item, name, value)  # a frozen dataclass has another one, which refuses


def _slots(item: object) -> Iterator[str]:
    for kind in type(item).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__"):
                yield f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
