"""When a worker that is told to end does so: in a process of its own, since it ends."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

SCRIPT = """
import sys, threading
from workers.drain import Drain

def hand_back():
    print("given back", flush=True)
    if "failing" in sys.argv:
        raise RuntimeError("the database is away")

drain = Drain(float(sys.argv[1]), lambda: print("to end soon", flush=True), hand_back)
drain.start()
for how in sys.argv[2].split(","):
    drain.ask(how=how, sig="SIGTERM", sender="one@host")
threading.Event().wait(20)  # as a node that does not end
"""


def end(seconds: float, how: str, *more: str) -> tuple[int, str, float]:
    """(exit code, what was printed, seconds it took with the start of Python)"""
    began = time.monotonic()
    command = [sys.executable, "-c", SCRIPT, str(seconds), how, *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=40)
    return done.returncode, done.stdout, time.monotonic() - began


@pytest.mark.parametrize("how", ["Warm,Warm", "Cold"])
def test_asked_twice_or_for_a_cold_shutdown_it_gives_back_at_once(how: str) -> None:
    code, told, took = end(60, how)

    assert (code, told) == (0, "to end soon\ngiven back\n")
    assert took < 15


def test_asked_once_it_waits_for_the_grace() -> None:
    code, told, took = end(1.0, "Warm")

    assert (code, told) == (0, "to end soon\ngiven back\n")
    assert took >= 1.0


def test_it_ends_also_where_giving_back_fails() -> None:
    code, told, _ = end(0, "Warm", "failing")

    assert (code, told) == (0, "to end soon\ngiven back\n")
