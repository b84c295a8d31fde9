"""What an ASGI server serves: `agentfarm.asgi:application`.

`python manage.py serve` serves the same, and ends open streams before it stops.
"""

import os

from agentfarm.conf import strict_msgpack

strict_msgpack()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentfarm.settings")

import django  # noqa: E402

django.setup(set_prefix=False)

import agentfarm.urls  # noqa: E402, F401  # now, so that what is wrong with it ends the process and not each request
from agentfarm.api.application import application as make_application  # noqa: E402

application = make_application()
