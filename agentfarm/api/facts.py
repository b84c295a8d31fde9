"""What is learnt about a request on its way in, for the line that the edge writes at its end."""

from typing import Final

from django.http import HttpRequest

#: In the ASGI scope: {"route": …, "tenant": …}.
FACTS: Final = "agentfarm.facts"


def note(request: HttpRequest, **facts: str) -> None:
    scope = getattr(request, "scope", None)  # WSGI has none
    if scope is not None:
        scope.get(FACTS, {}).update(facts)
