"""Local processes that pytest-celery takes for docker-py's containers.

pytest-celery wraps a container of docker-py in classes of its own (CeleryWorkerContainer, RabbitMQContainer, …) and
those in nodes and clusters. Of the container they use a small surface: id, name, status, attrs, reload, restart,
kill, logs, exec_run. A process with that surface lets its classes, and tests written for them, run where there is no
Docker.
"""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kombu import Connection
from pytest_celery import CeleryTestContainer, CeleryWorkerContainer, RabbitMQContainer, RedisContainer

from tests.farm import ROOT, children
from tests.unit.queueing.conftest import app_on

#: How long a process may take to end when it is asked to.
STOP_SECONDS = 30


class LocalProcess:
    """One process and its children, ended by pid."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"{name}-{self.id[:6]}"
        # A container's hostname is its id: by that pytest-celery knows the worker's node name.
        self.command = [part.replace("%h", self.id[:12]) for part in command]
        self.environment = {**os.environ, **environment}
        self.log = folder / f"{self.name}.log"
        self.status = "created"
        self.popen = self._start()

    @property
    def attrs(self) -> dict[str, Any]:
        return {
            "State": {"Pid": self.popen.pid, "ExitCode": self.popen.poll()},
            "Config": {"Hostname": self.id[:12]},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }

    def pids(self) -> list[int]:
        """Children first."""
        return [*children(self.popen.pid), self.popen.pid]

    def reload(self) -> None:
        if self.popen.poll() is not None:
            self.status = "exited"

    def logs(self) -> bytes:
        return self.log.read_bytes()

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """As `docker kill`: KILL takes the whole container, another signal is for its first process."""
        number = int(signal) if isinstance(signal, int) else int(getattr(_signals, signal))
        if number != _signals.SIGKILL:
            os.kill(self.popen.pid, number)
            return
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        self.popen.wait(STOP_SECONDS)
        self.reload()

    def wait(self) -> int:
        """The exit code. Raises TimeoutExpired."""
        return self.popen.wait(STOP_SECONDS)

    def restart(self, timeout: int = STOP_SECONDS) -> None:
        self.remove()
        self.popen = self._start()

    def remove(self) -> None:
        """End it: gently, then not."""
        if self.popen.poll() is not None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.status = "running"
        return started


_signals = signal


class FarmWorker(CeleryWorkerContainer):
    """The farm's own worker, as an operator starts it: nothing of pytest-celery's app or tasks."""

    pool, queue, slots = "threads", "io", 4

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:
        return [
            sys.executable, "-m", "celery", "-A", "workers", "worker", "-P", cls.pool, "-c", str(cls.slots),
            "-Q", cls.queue, "-n", f"{cls.worker_name()}@%h", "-l", "INFO",
            "--without-gossip", "--without-mingle", *args,
        ]  # fmt: skip


class PreforkWorker(FarmWorker):
    """For nodes that compute: a child a node."""

    pool, slots = "prefork", 2


class Server:
    """A server that the test session runs already: there for every test, never killed by one."""

    status = "running"
    attrs: dict[str, Any] = {"NetworkSettings": {"Networks": {}, "Ports": {}}}  # noqa: RUF012

    def __init__(self, url: str) -> None:
        self.id = uuid.uuid4().hex
        self.name = url.split(":", 1)[0]
        self.url = url

    def reload(self) -> None:
        """It does not change."""

    def logs(self) -> bytes:
        """Its log is below the session's folder, with the other servers'."""
        return b""


class _Ours:
    """What a broker's wrapper asks of its container, answered by the server's own URL."""

    _container: Server

    @property
    def celeryconfig(self) -> dict[str, str]:
        return {"url": self._container.url, "host_url": self._container.url}

    def ready(self) -> bool:
        with Connection(self._container.url) as connection:
            connection.ensure_connection(max_retries=3)
        return True


class OurRabbitMQ(_Ours, RabbitMQContainer):
    pass


class OurValkey(_Ours, RedisContainer):
    pass


class OurSqs(_Ours, CeleryTestContainer):
    def ready(self) -> bool:
        with app_on(self._container.url).connection_for_read() as connection:  # with the farm's own transport
            connection.ensure_connection(max_retries=3)
        return True
