"""pytest-celery's own fixtures, with the farm's workers as nodes and our servers as brokers.

Overridden are the containers and what depends on pytest-celery's generated app; nodes, clusters and `celery_setup`
are its own.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from celery import Celery
from pytest_celery import (
    CeleryTestBroker,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
)

from agentfarm.flow.farm import Farm
from agentfarm.local.rabbitmq import RabbitMQ
from tests.farm import ROOT
from tests.services import SECRETS, OwnDatabase
from tests.smoke.nodes import FarmWorker, LocalProcess, OurRabbitMQ, OurSqs, OurValkey, Server
from tests.sqs import Moto
from tests.unit.queueing.conftest import app_on
from tests.wired import wired

BROKERS = [
    "celery_redis_broker",
    pytest.param("celery_rabbitmq_broker", marks=pytest.mark.rabbitmq),
    "celery_sqs_broker",
]


class FarmSetup(CeleryTestSetup):
    """The farm's app, by which the test asks workers whether they live."""

    @classmethod
    def create_setup_app(cls, celery_setup_config: dict[str, str], celery_setup_app_name: str) -> Celery:
        return app_on(celery_setup_config["broker_url"])

    def teardown(self) -> None:
        self.app.close()


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    return FarmSetup


@pytest.fixture(params=BROKERS)
def celery_broker(request: pytest.FixtureRequest) -> Iterator[CeleryTestBroker]:
    broker: CeleryTestBroker = request.getfixturevalue(request.param)
    yield broker
    broker.teardown()


@pytest.fixture
def celery_backend_cluster() -> None:
    """The farm keeps no results."""


@pytest.fixture
def default_redis_broker(redis_url: str) -> OurValkey:
    return OurValkey(Server(redis_url))


@pytest.fixture
def default_rabbitmq_broker(rabbitmq: RabbitMQ, worker_id: str) -> Iterator[OurRabbitMQ]:
    name = f"smoke-{worker_id}"  # the node is shared by all processes of the tests, whose modules run side by side
    yield OurRabbitMQ(Server(rabbitmq.make_virtual_host(name)))
    rabbitmq.drop_virtual_host(name)


@pytest.fixture
def celery_sqs_broker(sqs: Moto) -> CeleryTestBroker:
    """pytest-celery has none of its own."""
    sqs.empty()
    return CeleryTestBroker(OurSqs(Server(sqs.url)))


# --------------------------------------------------------------------------- workers


@pytest.fixture
def default_worker_container_cls() -> type[FarmWorker]:
    return FarmWorker


@pytest.fixture
def default_worker_env(
    celery_worker_cluster_config: dict[str, dict[str, list[str]]],
    database: OwnDatabase,
    redis_url: str,
    tmp_path: Path,
) -> Mapping[str, str]:
    """What every process of the farm is started with; the broker is pytest-celery's."""
    return {
        **database.environment,
        **SECRETS,
        "REDIS_URL": redis_url,
        "CELERY_BROKER_URL": celery_worker_cluster_config["celery_broker_cluster_config"]["urls"][0],
        "AGENTFARM_CONFIG": str(ROOT / "tests/smoke/langgraph.json"),
        "SMOKE_FOLDER": str(tmp_path),
    }


@pytest.fixture
def start_container(
    default_worker_container_cls: type[FarmWorker], default_worker_env: Mapping[str, str], tmp_path: Path
) -> Iterator[Callable[[], FarmWorker]]:
    started = []

    def start() -> FarmWorker:
        process = LocalProcess("worker", default_worker_container_cls.command(), default_worker_env, tmp_path)
        started.append(process)
        return default_worker_container_cls(process)

    yield start
    for process in started:
        process.remove()


@pytest.fixture
def default_worker_container(start_container: Callable[[], FarmWorker]) -> FarmWorker:
    return start_container()


@pytest.fixture
def celery_worker_cluster(
    celery_worker: CeleryTestWorker,
    start_container: Callable[[], FarmWorker],
    default_worker_cls: type[CeleryTestWorker],
    default_worker_app: Celery,
) -> Iterator[CeleryWorkerCluster]:
    """Two workers."""
    cluster = CeleryWorkerCluster(celery_worker, default_worker_cls(start_container(), app=default_worker_app))
    assert cluster.ready()
    yield cluster
    cluster.teardown()


# --------------------------------------------------------------------------- the farm


@pytest.fixture
def farm(default_worker_env: Mapping[str, str]) -> Iterator[Farm]:
    """The flow in this process: what the web process would do."""
    with wired(default_worker_env) as made:
        yield made


@pytest.fixture
def healer(default_worker_env: Mapping[str, str], tmp_path: Path) -> Iterator[LocalProcess]:
    command = [*FarmWorker.command()[:5], "beat", "-l", "INFO"]
    beat = LocalProcess("beat", command, default_worker_env, tmp_path)
    yield beat
    beat.remove()
