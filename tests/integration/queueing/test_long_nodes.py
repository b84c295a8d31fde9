"""A node that takes longer than Redis waits for it: with the keeper it is executed once, without it again."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agentfarm.queueing.broker import declare_all
from agentfarm.queueing.publisher import CeleryPublisher
from tests.farm import ROOT, wait_for
from tests.integration.queueing.test_brokers import a_message
from tests.unit.queueing.conftest import app_on

SECONDS = 6  # three visibility timeouts


@pytest.mark.slow
@pytest.mark.parametrize(("pool", "kept"), [("threads", True), ("prefork", True), ("threads", False)])
def test_a_long_node_is_given_to_nobody_else(redis_url: str, tmp_path: Path, pool: str, kept: bool) -> None:
    app, trail = app_on(redis_url), tmp_path / "trail"
    trail.touch()
    declare_all(app)
    environment = {"SLOW_BROKER_URL": redis_url, "SLOW_TRAIL": str(trail), "SLOW_SECONDS": str(SECONDS)}
    environment |= {} if kept else {"WITHOUT_KEEPER": "1"}
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.queueing.slow_worker", "worker", "-P", pool]
    with (tmp_path / "log").open("wb") as log, closing(CeleryPublisher(app, "io")) as publisher:
        worker = subprocess.Popen(
            [*command, "-c", "2", "-Q", "io", "--without-gossip", "--without-mingle"],
            cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            publisher.publish([a_message()])
            wait_for(lambda: "done" in trail.read_text(), what="the end of the node", seconds=60)
        finally:
            worker.terminate()
            worker.wait(60)

    begun = trail.read_text().splitlines().count("begun")
    assert (begun == 1) == kept
