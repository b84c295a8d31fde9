"""The outermost of Django's middlewares: every answer that is not a page of the admin is JSON."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from agentfarm.api.facts import note
from agentfarm.api.problems import MethodNotAllowed, render_problem


class Problems:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if request.resolver_match is not None:
            note(request, route=f"/{request.resolver_match.route}")
        if response.status_code == MethodNotAllowed.http_status and isinstance(response, HttpResponse):
            problem = render_problem(MethodNotAllowed())
            problem["allow"] = response["allow"]
            return problem
        return response
