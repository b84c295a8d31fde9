"""A Celery app that is never connected."""

import pytest
from celery import Celery

from agentfarm.conf import Settings
from agentfarm.queueing.broker import make_app
from agentfarm.queueing.names import queue_names

NOWHERE = {
    "redis": "redis://127.0.0.1:1/0",
    "amqp": "amqp://guest:guest@127.0.0.1:1//",
    "sqs": "sqs://key:secret@127.0.0.1:1",
}


def settings_on(broker_url: str, **more: object) -> Settings:
    values = {
        "database_url": "postgresql://farm_app:none@127.0.0.1:1/none",
        "redis_url": "redis://127.0.0.1:1/0",
        "broker_url": broker_url,
        "secret_key": "for-tests-only",
    }
    return Settings.model_validate({**values, **more})


def app_on(broker_url: str, *of_graphs: str, **more: object) -> Celery:
    settings = settings_on(broker_url, **more)
    return make_app(settings, queues=queue_names(settings, of_graphs))


@pytest.fixture(params=["redis", "amqp", "sqs"])
def app(request: pytest.FixtureRequest) -> Celery:
    return app_on(NOWHERE[request.param])
