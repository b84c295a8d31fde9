"""A storm of every kind of fault over a whole farm, as short as CI allows. `make chaos` runs longer ones by hand."""

import os
import subprocess
import sys

import pytest

from tests.farm import ROOT

SECONDS = os.environ.get("AGENTFARM_CHAOS_SECONDS", "90")
SEED = os.environ.get("AGENTFARM_CHAOS_SEED")
BROKER = os.environ.get("AGENTFARM_CHAOS_BROKER", "redis")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_dies_every_acknowledged_run_ends_right_and_once() -> None:
    seed = ["--seed", SEED] if SEED else []

    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seconds", SECONDS, "--broker", BROKER, *seed],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
