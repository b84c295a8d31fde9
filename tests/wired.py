"""agentfarm.wiring in the test's own process: the flow over real stores, without a web process."""

import contextlib
import os
from collections.abc import Iterator, Mapping

from agentfarm import wiring
from agentfarm.conf import forget_settings
from agentfarm.flow.farm import Farm


@contextlib.contextmanager
def wired(environment: Mapping[str, str]) -> Iterator[Farm]:
    """`wiring.farm()` of this process, as these settings make it; closed and forgotten at the end."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    _forget()
    try:
        yield wiring.farm()
    finally:
        wiring.stop_worker()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _forget()


def _forget() -> None:
    forget_settings()
    wiring.graphs.cache_clear()
    wiring.celery_app.cache_clear()
