"""For servers that speak WSGI: the admin and the JSON endpoints. Streams and waits need agentfarm.asgi:application."""

import os

from agentfarm.conf import strict_msgpack

strict_msgpack()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentfarm.settings")

from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()
