"""A real farm for the tests: web, workers and beat as processes of their own, over servers that the test was given.

Every wait is for a fact (a port that answers, a row in farm.worker) with a deadline that names what did not come.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

ROOT = Path(__file__).resolve().parent.parent

#: A process imports all of the product and its graphs; on a machine that has much else to do, that takes a while.
START_SECONDS = 180.0

T = TypeVar("T")


def wait_for(fact: Callable[[], T], *, what: str, seconds: float = 30.0, every_seconds: float = 0.02) -> T:
    """The first truthy answer. Raises AssertionError, which names what did not come in time."""
    end = time.monotonic() + seconds
    while True:
        if answer := fact():
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"did not come within {seconds:.0f} s: {what}")
        time.sleep(every_seconds)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Process:
    """One process of the farm, ended by its pid and nothing else."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def kill(self) -> None:
        """kill -9 of the process and of its children (prefork)."""
        for pid in [*children(self.pid), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait(10)

    def freeze(self) -> None:
        for pid in [self.pid, *children(self.pid)]:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in [self.pid, *children(self.pid)]:
            os.kill(pid, signal.SIGCONT)

    def stop(self, *, seconds: float = 20.0) -> int:
        """SIGTERM, and the exit code. A process that does not go is killed and fails the test."""
        self.ask_to_end()
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {seconds:.0f} s of SIGTERM\n{self.tail()}") from None

    def ask_to_end(self) -> None:
        if self.popen.poll() is None:
            self.thaw()
            self.popen.send_signal(signal.SIGTERM)

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def children(pid: int) -> list[int]:
    """Of one process, from /proc; those of its children first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [*children(child), child]
    return found


@dataclass
class FarmProcesses:
    """The processes of one farm. `environment` holds DATABASE_URL and its like; keys[slug] is a tenant's API key."""

    environment: Mapping[str, str]
    folder: Path
    admin_dsn: str
    keys: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: list[Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str, *command: str, **environment: str) -> Process:
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            popen = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, **self.environment, "PORT": str(self.port), **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def start_all(self, *workers: str, beat: bool = True) -> None:
        """Web, workers and beat, side by side: what takes them long is to import the product and its graphs."""
        before = self.worker_names()
        web, begun = self.begin_web(), [self.begin_worker(name) for name in workers]
        if beat:
            self.start_beat()
        self.await_web(web)
        for worker in begun:
            self.await_worker(worker, before)

    def start_web(self) -> Process:
        web = self.begin_web()
        self.await_web(web)
        return web

    def start_worker(
        self, name: str, *, pool: str = "threads", queue: str = "io", slots: int = 8, **environment: str
    ) -> Process:
        before = self.worker_names()
        worker = self.begin_worker(name, pool=pool, queue=queue, slots=slots, **environment)
        self.await_worker(worker, before, count=slots if pool == "prefork" else 1)
        return worker

    def start_beat(self) -> Process:
        return self.start("beat", "-m", "celery", "-A", "workers", "beat", "-l", "INFO")

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ok", timeout=2) as answer:  # our own loopback address
                return bool(answer.status == 200)
        except OSError:
            return False

    def begin_web(self) -> Process:
        return self.start("web", "manage.py", "serve", "--host", "127.0.0.1", "--port", str(self.port))

    def await_web(self, web: Process) -> None:
        answers = f"an answer of {self.url}/ok; log: {web.log}"
        wait_for(lambda: self._alive(web) and self.answers(), what=answers, seconds=START_SECONDS)

    def begin_worker(
        self, name: str, *, pool: str = "threads", queue: str = "io", slots: int = 8, **environment: str
    ) -> Process:
        return self.start(
            name, "-m", "celery", "-A", "workers", "worker", "-P", pool, "-c", str(slots), "-Q", f"{queue}.v1",
            "-n", f"{name}@%h", "--without-gossip", "--without-mingle", "-l", "INFO", **environment,
        )  # fmt: skip

    def await_worker(self, worker: Process, before: set[str], *, count: int = 1) -> None:
        """before  the workers that were there when it was begun: an earlier one may have had its name"""

        def is_there() -> bool:
            new = {name for name in self.worker_names() - before if name.startswith(f"{worker.name}@")}
            return self._alive(worker) and len(new) >= count

        wait_for(is_there, what=f"worker {worker.name} in farm.worker; log: {worker.log}", seconds=START_SECONDS)

    def worker_names(self) -> set[str]:
        return {
            f"{row[0]} {row[1]}" for row in self.query("SELECT name, worker FROM farm.worker WHERE ended_at IS NULL")
        }

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """As the superuser: facts over all tenants, for the tests alone."""
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]  # literal SQL of the tests

    def holder_of(self, run_id: str, node: str) -> int:
        """The pid of the worker that executes the node right now; waits for it."""
        sql = (
            "SELECT w.pid FROM farm.node_execution e JOIN farm.worker w USING (worker)"
            " WHERE e.run_id = %s AND e.node = %s AND e.status = 'leased'"
        )
        return int(
            wait_for(lambda: self.query(sql, run_id, node), what=f"a worker that holds {node} of run {run_id}")[0][0]
        )

    def process_of(self, pid: int) -> Process:
        return next(p for p in self.processes if pid == p.pid or pid in children(p.pid))

    def stop(self) -> None:
        """All at once. Whatever becomes of one, the others are ended. Those that have ended may be asked again."""
        with contextlib.ExitStack() as ending:
            for process in self.processes:
                process.ask_to_end()
                ending.callback(process.stop, seconds=60.0)

    def _alive(self, process: Process) -> bool:
        if process.popen.poll() is not None:
            raise AssertionError(f"{process.name} ended with {process.popen.returncode}\n{process.tail()}")
        return True


def manage(farm: FarmProcesses, *command: str, fails: bool = False) -> str:
    """What a command of manage.py printed; what it complained of, where it is to fail."""
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT, env={**os.environ, **farm.environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert bool(done.returncode) == fails, done.stderr
    return done.stderr if fails else done.stdout


#: The farms of this process that `running` holds.
RUNNING: list[FarmProcesses] = []


@contextlib.contextmanager
def running(farm: FarmProcesses) -> Iterator[FarmProcesses]:
    """Ends every process of the farm, also when the test fails."""
    RUNNING.append(farm)
    try:
        yield farm
    finally:
        RUNNING.remove(farm)
        farm.stop()
