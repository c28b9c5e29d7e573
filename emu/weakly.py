"""Methods that a device may hold without holding what they belong to: else a board that nobody needs any more, and with it the
guest's memory, would stay until Python looks for cycles."""

from _weakref import ref  # what `weakref` gives away, without the milliseconds that it takes to import
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def weakly(method: Callable[P, R]) -> Callable[P, R]:
    """A bound method, to be called as long as its object lives."""
    bound: Any = method
    function, owner = bound.__func__, ref(bound.__self__)

    def call(*arguments: P.args, **named: P.kwargs) -> R:
        result: R = function(owner(), *arguments, **named)
        return result

    return call
