"""`slow_worker` as a process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.farm import ROOT, wait_for


@dataclass
class SlowWorker:
    """Notes in `trail` each task that it begins and ends."""

    popen: "subprocess.Popen[bytes]"
    trail: Path
    log: Path

    def await_done(self, times: int = 1, *, seconds: float = 60) -> None:
        wait_for(lambda: self.count("done") >= times, what=f"{times} tasks; log: {self.log}", seconds=seconds)

    def count(self, what: str) -> int:
        return self.trail.read_text().splitlines().count(what)


@contextmanager
def slow_worker(
    broker_url: str, folder: Path, *, seconds: float, pool: str = "threads", slots: int = 2, **environment: str
) -> Iterator[SlowWorker]:
    """seconds  that each of its tasks takes. Ended by SIGTERM, which it has to obey."""
    trail, log = folder / "trail", folder / "log"
    trail.touch()
    environment |= {"SLOW_BROKER_URL": broker_url, "SLOW_TRAIL": str(trail), "SLOW_SECONDS": str(seconds)}
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.queueing.slow_worker", "worker", "-P", pool]
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [*command, "-c", str(slots), "-Q", "io", "--without-gossip", "--without-mingle", "-l", "INFO"],
            cwd=ROOT, env={**os.environ, **environment}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield SlowWorker(popen, trail, log)
    finally:
        popen.terminate()
        popen.wait(60)
