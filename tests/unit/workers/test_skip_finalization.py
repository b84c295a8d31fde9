"""A worker that was asked to end ends with 0 after its handlers of atexit, and before Python takes it apart."""

import subprocess
import sys

PROGRAM = """
import atexit
from workers.drain import skip_finalization

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
atexit.register(print, "said at the end")
skip_finalization()
skip_finalization()
"""


def test_handlers_are_called_and_objects_are_left() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout) == (0, "said at the end\n"), done.stderr
