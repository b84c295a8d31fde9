"""A worker that is asked to end twice ends, also when the second SIGTERM interrupts what the first began."""

import subprocess
import sys

PROGRAM = """
import os, signal
from types import SimpleNamespace
from celery import Celery, signals
from celery.apps import worker
from workers import lifecycle

asked = []
signals.worker_shutting_down.connect(lambda **_: asked.append("asked"), weak=False)
lifecycle.install(Celery())
lock = signals.worker_shutting_down.lock

class Interrupted:
    # Celery's, at the worst instant: SIGTERM comes while it is held.
    def __enter__(self):
        lock.acquire()
        signals.worker_shutting_down.lock = lock
        os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *error):
        lock.release()

signals.worker_shutting_down.lock = Interrupted()
worker.install_worker_term_handler(SimpleNamespace(hostname="w"))
os.kill(os.getpid(), signal.SIGTERM)
print(*asked)
"""


def test_a_second_sigterm_does_not_keep_the_worker() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)

    assert done.stdout.endswith("asked asked\n"), done.stderr
