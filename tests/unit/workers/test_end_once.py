"""A beat that is asked to end twice ends, also when the second SIGTERM interrupts what the first began."""

import subprocess
import sys

PROGRAM = """
import os, signal, threading
from celery import Celery, signals
from workers.schedule import end_once

class Interrupted(threading.Event):
    # Celery's, at the worst instant: SIGTERM comes while it is being set.
    def set(self):
        with self._cond:
            os.kill(os.getpid(), signal.SIGTERM)
            self._flag = True

def ask(sender, **_):
    sender._is_stopped = Interrupted()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()

signals.beat_init.connect(end_once)
signals.beat_init.connect(ask)
app = Celery(broker="memory://")
app.conf.beat_scheduler = "celery.beat:Scheduler"
app.Beat(quiet=True).run()
"""


def test_a_second_sigterm_does_not_keep_beat() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
