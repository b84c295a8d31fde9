"""Tracebacks without values: where it happened and of what kind, never what was in the variables or in the message.

A driver's message quotes the row, a parser's quotes the input, a node's quotes the prompt. So of an error that is not
ours the type is told, and a code where it has one; what AgentFarmError says is safe by its own rules.
"""

import traceback
from collections.abc import Iterator
from typing import Final

from agentfarm.errors import AgentFarmError

#: Frames told of each error, the innermost ones: a recursion must not fill the log.
MAX_FRAMES: Final = 40

#: Errors told of a chain or group.
MAX_ERRORS: Final = 10


def render_traceback(error: BaseException) -> str:
    """Of the error and of those that led to it, the first cause first."""
    chain = list(_chain(error))[:MAX_ERRORS]
    return "\n".join(f"{_frames(one)}{name_error(one)}" for one in reversed(chain))


def name_error(error: BaseException) -> str:
    """Type, and what is safe to repeat."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, AgentFarmError):
        return f"{name}: {error}"
    code = getattr(error, "sqlstate", None) or getattr(error, "errno", None)
    return f"{name} ({code})" if isinstance(code, str | int) else name


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        led_to_it = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if led_to_it is not None:
            waiting.append(led_to_it)


def _frames(error: BaseException) -> str:
    summary = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    lines = [f"  {frame.filename}:{frame.lineno} in {frame.name}\n" for frame in summary[-MAX_FRAMES:]]
    return "".join(lines)
