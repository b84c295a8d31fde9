"""Endpoints of the Agent Server API that this version does not serve. They say so: a 404 would look like a typo."""

from collections.abc import Callable
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from ninja import Router

from agentfarm.api.problems import NotServedYet

router = Router()

ABSENT: Final = (
    (("POST",), "/assistants", "Making assistants"),
    (("PATCH", "DELETE"), "/assistants/{assistant_id}", "Changing assistants"),
    (("POST",), "/assistants/{assistant_id}/versions", "Versions of assistants"),
    (("POST",), "/assistants/{assistant_id}/latest", "Versions of assistants"),
    (("POST",), "/threads/prune", "Pruning threads"),
    (("POST",), "/threads/{thread_id}/copy", "Copying threads"),
    (("GET",), "/threads/{thread_id}/stream", "The stream of a whole thread"),
    (("GET",), "/threads/{thread_id}/storage", "The storage of a thread"),
    (("PATCH",), "/threads/{thread_id}/state", "Changing the metadata of a state"),
    (("POST",), "/threads/{thread_id}/commands", "The thread protocol"),
    (("POST", "GET"), "/threads/{thread_id}/stream/events", "The thread protocol"),
    (("POST",), "/threads/{thread_id}/runs/crons", "Crons"),
    (("POST",), "/runs/crons", "Crons"),
    (("POST",), "/runs/crons/search", "Crons"),
    (("POST",), "/runs/crons/count", "Crons"),
    (("GET", "PATCH", "DELETE"), "/runs/crons/{cron_id}", "Crons"),
    (("GET", "PUT", "DELETE"), "/store/items", "The store"),
    (("POST",), "/store/items/search", "The store"),
    (("POST",), "/store/namespaces", "The store"),
    (("GET", "POST"), "/mcp", "MCP"),
    (("POST",), "/a2a/{assistant_id}", "A2A"),
    (("GET",), "/metrics", "Metrics over HTTP"),
)


def _absent(what: str, path: str) -> Callable[..., HttpResponse]:
    """A view that takes whatever is in the path and answers 501."""

    def view(request: HttpRequest, **_: Any) -> HttpResponse:
        raise NotServedYet(what=what)

    view.__name__ = "absent_" + "_".join(filter(str.isidentifier, path.replace("{", "").replace("}", "").split("/")))
    return view


for methods, path, what in ABSENT:
    router.api_operation(list(methods), path, include_in_schema=False)(_absent(what, path))
