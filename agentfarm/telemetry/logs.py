"""One log for all: our own lines, Django's, uvicorn's, Celery's and the libraries', each with the ids it belongs to.

A line is an event in words and a few facts. On a terminal it reads as text, with LOG_JSON=true it is one JSON object.
`logging` is what the code calls; structlog only renders.
"""

import logging
import logging.config
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agentfarm.telemetry.tracebacks import render_traceback
from agentfarm.tenancy import find_tenant

#: Loggers that say too much at INFO, or what we say better ourselves.
QUIETER: Final = {
    "django.request": "ERROR",  # api/edge.py writes a line a request, without the path that the client chose
    "django.security": "ERROR",
    "uvicorn.access": "WARNING",
    "asyncio": "WARNING",
    "httpx": "WARNING",
    "httpcore": "WARNING",
    "langgraph.pregel._retry": "WARNING",  # a line a retry, with what the node's error says: prompts, keys
}


def configure_logs(*, level: str, as_json: bool) -> None:
    """For processes without Django; with Django, settings.LOGGING does the same."""
    logging.config.dictConfig(logging_config(level=level, as_json=as_json))


def logging_config(*, level: str, as_json: bool) -> dict[str, Any]:
    """For logging.config.dictConfig."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"farm": {"()": make_formatter, "as_json": as_json}},
        "filters": {"no_cuts": {"()": _NoCuts}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "farm", "filters": ["no_cuts"]}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            **{name: {"level": quieter} for name, quieter in QUIETER.items()},
            # Django and uvicorn bring handlers of their own, which would write each line twice.
            **{name: {"handlers": [], "propagate": True} for name in ("django", "uvicorn", "uvicorn.error")},
        },
    }


class _NoCuts(logging.Filter):
    """Without uvicorn's error about each stream that we cut on purpose (streaming/handoff.py)."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.name == "uvicorn.error" and "without completing response" in str(record.msg))


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Every line inside carries these ids, also in the threads that Django runs views in."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def make_formatter(*, as_json: bool) -> logging.Formatter:
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_tenant,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _render_error,
        _drop_colours,
    ]
    last: Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, sort_keys=False)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=chain,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )


def _add_tenant(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if (tenant := find_tenant()) is not None:
        event.setdefault("tenant", tenant.slug)
    return event


def _render_error(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The traceback without values. `stack_info` is only ever asked for by hand, and tells no values either."""
    info = event.pop("exc_info", None)
    error = _error_of(info)
    if error is not None:
        event["exception"] = render_traceback(error)
    return event


def _drop_colours(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """uvicorn sends each of its lines a second time, for terminals."""
    event.pop("color_message", None)
    return event


def _error_of(info: object) -> BaseException | None:
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple):
        found: tuple[type[BaseException] | None, BaseException | None, TracebackType | None] = info
        return found[1]
    return sys.exc_info()[1] if info else None


def _to_json(event: MutableMapping[str, Any], **_: Any) -> str:
    # What a library puts into a line may be anything: of what JSON does not know, the type is told.
    return orjson.dumps(
        event, default=lambda value: f"<{type(value).__name__}>", option=orjson.OPT_NON_STR_KEYS
    ).decode()
