"""Why a run failed, as farm.run.error keeps it and the API tells it."""

from typing import Any, Final

from agentfarm.records import Claimed

#: An error's text is the tenant's own (it may be a whole prompt): enough to understand it, not all of it.
MAX_MESSAGE: Final = 2000


def describe_error(error: BaseException | None, claimed: Claimed) -> dict[str, Any]:
    """{error: its type, message, node, attempts}; valid for jsonb whatever the error's text holds."""
    return {
        "error": type(error).__name__ if error is not None else "Error",
        "message": _text_of(error),
        "node": claimed.call.name if claimed.call is not None else claimed.kind,
        "attempts": claimed.attempt + (claimed.call.tries if claimed.call else 0),
    }


def _text_of(error: BaseException | None) -> str:
    if error is None:
        return "The run failed without an error."
    try:
        text = str(error)
    except Exception:  # an error of the tenant's own code, whose __str__ fails
        text = type(error).__name__
    # Neither NUL nor lone surrogates can be stored.
    return text[:MAX_MESSAGE].replace("\x00", "").encode("utf-8", "replace").decode()
