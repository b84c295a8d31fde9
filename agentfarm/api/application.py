"""The ASGI application: the edge, around the hand-off of streams, around Django. Django is set up already."""

from functools import cache

from agentfarm.api.django_handler import OneThreadHandler
from agentfarm.api.edge import Edge
from agentfarm.conf import settings
from agentfarm.streaming.handoff import StreamHandoff


@cache
def streams() -> StreamHandoff:
    """What has this process's open streams, and ends them when it is to stop."""
    return StreamHandoff(OneThreadHandler())


@cache
def application() -> Edge:
    chosen = settings()
    return Edge(streams(), max_body_bytes=chosen.max_body_bytes, cors_allow_origins=chosen.cors_allow_origins)
