"""Errors as a client sees them: a status, a sentence, a code. The log tells the rest under the same request id.

The body of an error is made from the error alone, so that two that must not be told apart (a thread of another tenant,
and one that does not exist) are the same bytes.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError

from agentfarm.api.names import safe_name
from agentfarm.conf import settings
from agentfarm.errors import AgentFarmError, BadRequest, NotFound, TooLarge, Unauthenticated

logger = logging.getLogger(__name__)


class NotServedYet(AgentFarmError):
    """An endpoint of the Agent Server API that this server does not have."""

    code = "not_implemented"
    http_status = 501
    says = "{what} is not served by this version of AgentFarm."


class MethodNotAllowed(AgentFarmError):
    code = "method_not_allowed"
    http_status = 405
    says = "This path does not take that method."


def render_problem(error: AgentFarmError) -> HttpResponse:
    """The error as a response. What is not meant for clients is told as "internal"."""
    body = {"detail": str(error), "code": error.code}
    response = HttpResponse(orjson.dumps(body), status=error.http_status, content_type="application/json")
    if error.may_succeed_later:
        response["retry-after"] = "1"
    if isinstance(error, Unauthenticated):
        response["www-authenticate"] = 'ApiKey realm="agentfarm"'
    return response


def render_validation(errors: Sequence[Mapping[str, Any]]) -> HttpResponse:
    """422: what is wrong and where, without what was sent."""
    detail = [{"type": error["type"], "loc": _place(error["loc"]), "msg": error["msg"]} for error in errors]
    body = {"detail": detail, "code": "invalid_input"}
    return HttpResponse(orjson.dumps(body), status=422, content_type="application/json")


def install(api: NinjaAPI) -> None:
    """What ninja does with each kind of exception."""

    def on_ours(_: HttpRequest, error: Any) -> HttpResponse:
        assert isinstance(error, AgentFarmError)
        if error.http_status >= 500 and not error.may_succeed_later:
            logger.error("a request failed", exc_info=error)
        return render_problem(error)

    def on_validation(_: HttpRequest, error: Any) -> HttpResponse:
        assert isinstance(error, ValidationError)
        return render_validation(error.errors)

    def on_http(_: HttpRequest, error: Any) -> HttpResponse:
        assert isinstance(error, HttpError)
        if isinstance(error.__cause__, AgentFarmError):  # ninja wraps what its body parser raises
            return render_problem(error.__cause__)
        if error.status_code == Unauthenticated.http_status:
            return render_problem(Unauthenticated())
        return render_problem(BadRequest(why="its form is not one this endpoint takes"))

    api.add_exception_handler(AgentFarmError, on_ours)
    api.add_exception_handler(ValidationError, on_validation)
    api.add_exception_handler(HttpError, on_http)
    api.add_exception_handler(Http404, not_found)
    api.add_exception_handler(SuspiciousOperation, bad_request)
    api.add_exception_handler(RequestDataTooBig, too_large)  # under WSGI; else the edge was first
    api.add_exception_handler(Exception, on_unknown)


def on_unknown(_: HttpRequest, error: Any) -> HttpResponse:
    logger.error("a request failed", exc_info=error)
    return render_problem(AgentFarmError())


# --------------------------------------------------------------------------- Django's own handlers (urls.py)


def bad_request(request: HttpRequest, exception: Any) -> HttpResponse:
    return render_problem(BadRequest(why="the server refused its form or its Host header"))


def too_large(request: HttpRequest, exception: Any) -> HttpResponse:
    return render_problem(TooLarge(what="The body", limit_bytes=settings().max_body_bytes))


def not_found(request: HttpRequest, exception: Any) -> HttpResponse:
    return render_problem(NotFound(what="Path"))


def server_error(request: HttpRequest) -> HttpResponse:
    return render_problem(AgentFarmError())


def _place(loc: Sequence[object]) -> list[str | int]:
    """Where, without the name of our parameter: ninja says ("body", "body", "limit")."""
    parts = loc[1:] if len(loc) > 1 and loc[0] == loc[1] else loc
    return [part if isinstance(part, int) else safe_name(str(part)) for part in parts]
