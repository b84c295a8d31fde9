"""What the server says of itself, to everybody: is it there, and what does it serve."""

from importlib.metadata import version

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import BaseModel

import agentfarm
from agentfarm.api import documents
from agentfarm.api.answers import answer
from agentfarm.api.health import NO_KEY
from agentfarm.api.process import farm, health

router = Router(tags=["System"], auth=None)


class OkQuery(BaseModel):
    check_db: bool = False


@router.get("/ok", response=documents.of(dict[str, object]), summary="Is the server there?")
def ok(request: HttpRequest, query: Query[OkQuery]) -> HttpResponse:
    """`check_db=1`: asks the database too, and answers 503 where that fails."""
    if query.check_db:
        farm().keys.find(NO_KEY)
        return answer({"ok": True, "services": {"database": True}})
    return answer({"ok": True})


@router.get("/ready", response=documents.of(dict[str, object]), summary="Can the server serve?")
def ready(request: HttpRequest) -> HttpResponse:
    """503 while the database is away. Without streams or broker runs are taken, and go on when they are back, so that
    the server stays in service: `services` says which is down."""
    services = health().look()
    is_ready = services["database"]
    response = answer({"ok": is_ready, "services": services}, status=200 if is_ready else 503)
    response["cache-control"] = "no-store"
    if not is_ready:
        response["retry-after"] = "1"
    return response


@router.get("/info", response=documents.of(documents.Info), summary="What does the server serve?")
def info(request: HttpRequest) -> HttpResponse:
    """Versions, what clients may ask for, and each graph: "ok", or why it could not be loaded."""
    graphs = farm().graphs
    return answer(
        {
            "version": agentfarm.__version__,
            "langgraph_py_version": version("langgraph"),
            "flags": {"assistants": True, "crons": False, "langsmith": False, "langsmith_tracing_replicas": False},
            "host": {"kind": "self-hosted", "project_id": None, "revision_id": None, "tenant_id": None},
            "graphs": {**dict.fromkeys(graphs.ids(), "ok"), **graphs.problems},
        }
    )
