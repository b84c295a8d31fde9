"""SQS on loopback: moto's server as a process of the test session's own, which a test may kill, empty and start again.

It keeps everything in memory, so that a kill of it is also the loss of every queue.
"""

import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from agentfarm.local.processes import die_with_parent, free_port
from tests.farm import ROOT, wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "of", "AWS_SECRET_ACCESS_KEY": "moto", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Moto:
    folder: Path
    port: int = field(default_factory=free_port)
    popen: "subprocess.Popen[bytes] | None" = None

    name = "moto"

    def __post_init__(self) -> None:
        # The kernel ends a process with the thread that started it, and whoever calls `start` may be a short one.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="moto")

    @property
    def url(self) -> str:
        return f"sqs://of:moto@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Idempotent."""
        if self.pid is None:
            self._starter.submit(self._start).result()
        wait_for(self.is_ready, what=f"an answer of moto; log: {self.folder}/moto.log", seconds=60)

    def _start(self) -> None:
        with (self.folder / "moto.log").open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                cwd=ROOT, env={**os.environ, **KEYS}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  # one system call, between fork and exec
            )  # fmt: skip

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self.popen.pid if self.popen is not None and self.popen.poll() is None else None

    def empty(self) -> None:
        """No queue, no message."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/moto-api/reset", method="POST")  # ours
        with urllib.request.urlopen(request, timeout=10):
            pass

    def kill(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait(10)

    def is_ready(self) -> bool:
        """SQS itself answers, which moto loads with the first question that is signed for it."""
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=of/20260101/us-east-1/sqs/aws4_request"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/", b"Action=ListQueues", signed)  # ours
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return b"ListQueuesResult" in answer.read()
        except OSError:
            return False
