"""A node that takes longer than Redis and SQS wait for it: with the keeper it is executed once, without it again."""

from contextlib import closing
from pathlib import Path

import pytest

from agentfarm.queueing.broker import declare_all
from agentfarm.queueing.publisher import CeleryPublisher
from tests.integration.queueing.test_brokers import a_message
from tests.integration.queueing.workers import slow_worker
from tests.unit.queueing.conftest import app_on

SECONDS = 6  # three visibility timeouts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broker_url", "pool", "kept", "spins"),
    [
        ("redis", "threads", True, False),
        ("redis", "threads", True, True),
        ("redis", "prefork", True, True),
        ("redis", "threads", False, False),
        ("sqs", "threads", True, True),
        ("sqs", "prefork", True, False),
        ("sqs", "threads", False, False),
    ],
    indirect=["broker_url"],
)
def test_a_long_node_is_given_to_nobody_else(
    broker_url: str, tmp_path: Path, pool: str, *, kept: bool, spins: bool
) -> None:
    app = app_on(broker_url)
    app.conf.broker_transport_options["visibility_timeout"] = 2  # as the worker's: who comes first makes the queue
    declare_all(app)
    how = ({} if kept else {"WITHOUT_KEEPER": "1"}) | ({"SLOW_SPINS": "1"} if spins else {})
    with (
        closing(CeleryPublisher(app, "io")) as publisher,
        slow_worker(broker_url, tmp_path, seconds=SECONDS, pool=pool, **how) as worker,
    ):
        publisher.publish([a_message()])
        worker.await_done()

    assert (worker.count("begun") == 1) == kept
