"""`celery -A tests.integration.queueing.slow_worker worker`: the farm's app with a visibility timeout that a test
can outlast.

One task, which waits (or, where SLOW_SPINS is set, computes) as long as SLOW_SECONDS says, tells Flower of SLOW_EVENTS
things, and notes each time it is begun. Without the keeper where WITHOUT_KEEPER is set.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

from celery.worker import state

from agentfarm.queueing import broker
from agentfarm.queueing.broker import EXECUTE_NODE
from agentfarm.queueing.lease_keeper import LeaseKeeper, ThreadedLeaseKeeper
from tests.unit.queueing.conftest import app_on

broker.VISIBILITY_SECONDS = 2

app = app_on(os.environ["SLOW_BROKER_URL"])
app.conf.broker_transport_options["unacked_restore_interval"] = 1  # of Redis; SQS needs no sweep
if "WITHOUT_KEEPER" in os.environ:
    app.steps["consumer"] -= {LeaseKeeper, ThreadedLeaseKeeper}


@app.task(name=EXECUTE_NODE, bind=True)
def slow(self: Any, body: dict[str, str]) -> None:
    """As a node that takes its time."""
    with Path(os.environ["SLOW_TRAIL"]).open("a") as trail:
        trail.write("begun\n")
    if "SLOW_SPINS" in os.environ:
        end = time.monotonic() + float(os.environ["SLOW_SECONDS"])
        while time.monotonic() < end:
            pass
    else:
        threading.Event().wait(float(os.environ["SLOW_SECONDS"]))
    for number in range(int(os.environ.get("SLOW_EVENTS", "0"))):
        state.requests[self.request.id].eventer.send("task-told", uuid=self.request.id, number=number)
    with Path(os.environ["SLOW_TRAIL"]).open("a") as trail:
        trail.write("done\n")
