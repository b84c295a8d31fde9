"""How the web process ends once nothing is served: with 0, and without waiting for whom nobody waits for."""

import subprocess
import sys
import time

import pytest

from agentfarm.api.server import LEAVE_SECONDS

PROGRAM = """
import atexit, threading
from agentfarm.api.server import leave

def wait_for_ever():
    threading.Event().wait()

print("ready", flush=True)
{before}
leave()
"""


@pytest.mark.parametrize(
    ("before", "at_least", "says"),
    [
        (
            "threading.Thread(target=wait_for_ever).start(); atexit.register(print, 'said at the end')",
            0,
            "said at the end",
        ),
        ("atexit.register(wait_for_ever)", LEAVE_SECONDS, "wait_for_ever"),
    ],
    ids=["thread", "handler"],
)
def test_a_web_process_ends_in_time(before: str, at_least: float, says: str) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    began = time.monotonic()

    said, _ = program.communicate(timeout=LEAVE_SECONDS + 30)
    took = time.monotonic() - began

    assert program.returncode == 0, said
    assert says in said
    assert took >= at_least
