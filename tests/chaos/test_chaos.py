"""Storms of every kind of fault over a whole farm, one on each broker. `make chaos` runs longer ones by hand."""

import os
import subprocess
import sys

import pytest

from tests.chaos.plan import EVERY_SECONDS
from tests.farm import ROOT

SECONDS = os.environ.get("AGENTFARM_CHAOS_SECONDS", "90")
#: One plan, so that a failure is the change's and not the day's; `make chaos` draws a new one each time.
SEED = os.environ.get("AGENTFARM_CHAOS_SEED", "11")
#: Other tests run beside it on the same cores.
SLACK = os.environ.get("AGENTFARM_CHAOS_SLACK", "2")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq), "sqs"])
def test_whatever_dies_every_acknowledged_run_ends_right_and_once(broker: str) -> None:
    seed = ["--seed", SEED] if SEED else []

    often = ["--every", str(EVERY_SECONDS / float(SLACK))]  # so that there is time for every kind of fault
    how = ["--seconds", SECONDS, "--broker", broker, "--slack", SLACK, *often, *seed]
    command = [sys.executable, "-m", "tests.chaos", *how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as storm:
        try:
            said, _ = storm.communicate()
        except BaseException:  # too long, or Ctrl-C: it ends its servers and processes before it goes
            storm.terminate()
            storm.wait(60)
            raise

    print(said)
    assert storm.returncode == 0, said[-10_000:]
