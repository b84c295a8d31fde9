"""agentfarm.settings for those who need Django and no server: the type checker, and tests of pure pages.

The servers named here do not exist; a test that needs one uses the fixtures of tests/services.py.
"""

import os

NOWHERE = {
    "DATABASE_URL": "postgresql://farm_app:none@127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/1",
    "AGENTFARM_SECRET_KEY": "for-tests-only-for-tests-only-for-tests-only",
}
for name, value in NOWHERE.items():
    os.environ.setdefault(name, value)

from agentfarm.settings import *  # noqa: E402, F403
