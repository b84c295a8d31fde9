"""The web process's application: the edge, around the hand-off of streams, around Django.

`python manage.py serve` runs it, and so can any ASGI server; only the former ends open streams before it stops.
"""

import os

from agentfarm.conf import settings, strict_msgpack

strict_msgpack()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentfarm.settings")

import django  # noqa: E402

django.setup(set_prefix=False)

import agentfarm.urls  # noqa: E402, F401  # now, so that what is wrong with it ends the process and not each request
from agentfarm.api.django_handler import OneThreadHandler  # noqa: E402
from agentfarm.api.edge import Edge  # noqa: E402
from agentfarm.streaming.handoff import StreamHandoff  # noqa: E402

streams = StreamHandoff(OneThreadHandler())
application = Edge(streams, max_body_bytes=settings().max_body_bytes, cors_allow_origins=settings().cors_allow_origins)
