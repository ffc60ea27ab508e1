"""Wraps functions of the program at places where it can be killed; what they do stays as it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tests.torture.trap import Trap

Where = str | Callable[..., str]


def _named(where: Where, *given: Any) -> str:
    return where if isinstance(where, str) else where(*given)


def wrap(trap: Trap, owner: Any, name: str, before: Where = "", after: Where = "") -> None:
    """Pass the place `before` when `owner.name` is called, and `after` when it has returned without an error.

    Each is a place or finds it: `before` from the arguments, `after` from the result and the arguments; "" for none.
    """
    original = getattr(owner, name)  # fails here where the program has changed: then this place has to move

    def enter(given: tuple[Any, ...]) -> None:
        if place := _named(before, *given):
            trap.passes(place)

    def leave(result: Any, given: tuple[Any, ...]) -> None:
        if place := _named(after, *given) if isinstance(after, str) else after(result, *given):
            trap.passes(place)

    def called(*given: Any, **named: Any) -> Any:
        enter(given)
        result = original(*given, **named)
        leave(result, given)
        return result

    async def awaited(*given: Any, **named: Any) -> Any:
        enter(given)
        result = await original(*given, **named)
        leave(result, given)
        return result

    wrapper: Any = awaited if inspect.iscoroutinefunction(original) else called
    if isinstance(inspect.getattr_static(owner, name), classmethod):  # `original` is bound to its class already
        wrapper = staticmethod(wrapper)
    setattr(owner, name, wrapper)
