"""Endpoints of the Agent Server API that this version does not serve. They say so: a 404 would look like a typo."""

import re
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from typing import Final

from django.http import HttpRequest, HttpResponse
from ninja import Router

from agentfarm.api.problems import NotServedYet

router = Router()

ABSENT: Final = (
    (("POST",), "/assistants", "Making assistants"),
    (("POST",), "/assistants/{assistant_id}/versions", "Versions of assistants"),
    (("POST",), "/assistants/{assistant_id}/latest", "Versions of assistants"),
    (("GET",), "/threads/{thread_id}/stream", "The stream of a whole thread"),
    (("GET",), "/threads/{thread_id}/storage", "The storage of a thread"),
    (("POST",), "/threads/{thread_id}/commands", "The thread protocol"),
    (("POST", "GET"), "/threads/{thread_id}/stream/events", "The thread protocol"),
    (("POST",), "/threads/{thread_id}/runs/crons", "Scheduling runs by cron"),
    (("POST",), "/runs/crons", "Scheduling runs by cron"),
    (("POST",), "/runs/crons/search", "Scheduling runs by cron"),
    (("POST",), "/runs/crons/count", "Scheduling runs by cron"),
    (("GET", "PATCH", "DELETE"), "/runs/crons/{cron_id}", "Scheduling runs by cron"),
    (("GET", "POST"), "/mcp", "MCP"),
    (("POST",), "/a2a/{assistant_id}", "A2A"),
    (("GET",), "/metrics", "Metrics over HTTP"),
)


def _absent(what: str, path: str) -> Callable[..., HttpResponse]:
    """A view that takes whatever is in the path and answers 501."""

    def view(request: HttpRequest, **_: str) -> HttpResponse:
        raise NotServedYet(what=what)

    names = ["request", *re.findall(r"{(\w+)}", path)]
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=str) for name in names]
    vars(view)["__signature__"] = Signature(parameters)  # where ninja reads the path's parameters
    view.__name__ = "absent" + re.sub(r"\W+", "_", path)
    return view


def say_absent(router: Router, methods: Sequence[str], path: str, what: str) -> None:
    """Answer 501 there. Methods of a path that is served otherwise belong to that path's own router."""
    router.api_operation(list(methods), path, include_in_schema=False)(_absent(what, path))


for methods, path, what in ABSENT:
    say_absent(router, methods, path, what)
