"""The farm's processes, each behind proxies of its group, and a supervisor that starts again whatever ended.

control   two webs and beat
one, two  workers of threads
three     a worker of prefork children

Two of them take what is in quarantine: what lost its worker twice must not wait until the only one comes back.
"""

import contextlib
import os
import random
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.chaos.proxy import Network, Proxy
from tests.chaos.servers import NAMES, Servers
from tests.farm import FarmProcesses, Process, children, free_port, wait_for

THREADS = ("one", "two")
PREFORK = "three"
WORKERS = (*THREADS, PREFORK)
GROUPS = ("control", *WORKERS)
WEBS = ("web", "web2")
PROCESSES = (*WEBS, "beat", *WORKERS)

#: Seconds until what was killed is started again.
PAUSE_SECONDS = (0.2, 2.0)

START_SECONDS = 180.0
LOOK_SECONDS = 0.2
STOP_SECONDS = 40.0


@dataclass
class Fleet:
    """environment  of all; a process adds the addresses of its group
    clocks        what a process is started with on top, while its clock is to be wrong
    """

    servers: Servers
    network: Network
    environment: Mapping[str, str]
    folder: Path
    rng: random.Random
    clocks: dict[str, Mapping[str, str]] = field(default_factory=dict)
    running: dict[str, Process] = field(default_factory=dict)
    restarts: int = 0
    ended: list[tuple[str, int]] = field(default_factory=list)  # by themselves, with an exit code

    def __post_init__(self) -> None:
        self._farm = FarmProcesses(self.environment, self.folder, self.servers.root_url)
        self._ports = {name: free_port() for name in WEBS}
        for group in GROUPS:
            for server in NAMES:
                self.network.proxy(f"{group}-{server}", lambda server=server: self.servers.port(server))  # type: ignore[misc]
        self._due: dict[str, float] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    @property
    def urls(self) -> list[str]:
        return [self._url(name) for name in WEBS]

    def _url(self, web: str) -> str:
        return f"http://127.0.0.1:{self._ports[web]}"

    def proxy(self, group: str, server: str) -> Proxy:
        return self.network.find([f"{group}-{server}"])[0]

    # -- start and end

    def start(self) -> None:
        """Every process, side by side; returns when each web answers and each worker has its lease."""
        for name in PROCESSES:
            self._start(name)
        self.await_whole(seconds=START_SECONDS)
        self._supervisor.start()

    def stop(self) -> dict[str, int]:
        """SIGTERM to all, workers first. name → exit code. Raises AssertionError for one that does not end."""
        self._ending.set()
        if self._supervisor.is_alive():
            self._supervisor.join(10)
        return {name: self.running[name].stop(seconds=STOP_SECONDS) for name in (*WORKERS, "beat", *WEBS)}

    def kill_all(self) -> None:
        """Whatever happened: nothing of ours is left behind."""
        self._ending.set()
        if self._supervisor.is_alive():
            self._supervisor.join(10)
        for process in self._farm.processes:
            if process.popen.poll() is None:
                process.kill()

    def await_whole(self, *, seconds: float) -> None:
        """Raises AssertionError."""
        wait_for(self.is_whole, what=f"a whole farm; logs: {self.folder}", seconds=seconds, every_seconds=LOOK_SECONDS)

    def is_whole(self) -> bool:
        """Every process runs, each web answers, every worker's row is fresh."""
        with self._lock:
            if any(process.popen.poll() is not None for process in self.running.values()):
                return False
        return all(map(self.answers, WEBS)) and all(self.is_beating(name) for name in WORKERS)

    def answers(self, web: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url(web)}/ok", timeout=2) as answer:  # our own loopback address
                return bool(answer.status == 200)
        except OSError:
            return False

    def _beating(self) -> set[str]:
        """Names of the workers of which a process that runs now has beaten lately."""
        rows = self._farm.query(
            "SELECT name FROM farm.worker WHERE ended_at IS NULL AND beat_at > now() - interval '3 s'"
        )
        with self._lock:
            pids = {
                pid: name for name, process in self.running.items() for pid in (process.pid, *children(process.pid))
            }
        return {name for (node,) in rows if (name := pids.get(int(node.rpartition("/")[2]))) is not None}

    def _start(self, name: str) -> None:
        group = name if name in WORKERS else "control"
        ports = {server: self.proxy(group, server).port for server in NAMES}
        own = {**self.servers.urls(ports), **self.clocks.get(name, {})}
        with self._lock:
            self.running[name] = self._farm.start(name, *self._command(name), **own)

    def _command(self, name: str) -> tuple[str, ...]:
        if name in WEBS:
            return ("manage.py", "serve", "--host", "127.0.0.1", "--port", str(self._ports[name]))
        if name == "beat":
            return ("-m", "celery", "-A", "workers", "beat", "-l", "INFO")
        pool = ("prefork", "2") if name == PREFORK else ("threads", "6")
        queues = "io,cpu" if name == THREADS[0] else "io,cpu,quarantine"
        return (
            "-m", "celery", "-A", "workers", "worker", "-P", pool[0], "-c", pool[1], "-Q", queues,
            "-n", f"{name}@%h", "--without-gossip", "--without-mingle", "-l", "INFO",
        )  # fmt: skip

    # -- the supervisor

    def _supervise(self) -> None:
        while not self._ending.wait(0.05):
            now = time.monotonic()
            for name in PROCESSES:
                code = self.running[name].popen.poll()
                if code is None:
                    continue
                if name not in self._due and code != -signal.SIGKILL:
                    self.ended.append((name, code))
                due = self._due.setdefault(name, now + self.rng.uniform(*PAUSE_SECONDS))
                if now >= due and not self._ending.is_set():
                    del self._due[name]
                    self.restarts += 1
                    self._start(name)

    # -- what faults do to processes

    def pids(self, name: str) -> list[int]:
        with self._lock:
            process = self.running[name]
        return [process.pid, *children(process.pid)]

    def is_running(self, name: str) -> bool:
        return self.running[name].popen.poll() is None

    def is_beating(self, name: str) -> bool:
        """Whether the worker runs and has its lease. Raises nothing while Postgres is away."""
        try:
            return self.is_running(name) and name in self._beating()
        except psycopg.OperationalError:
            return False

    def kill(self, name: str) -> list[int]:
        """kill -9 of the process and its children; their pids."""
        pids = self.pids(name)
        self.running[name].kill()
        return pids

    def kill_parent(self, name: str) -> list[int]:
        """kill -9 of the parent of prefork children alone."""
        process = self.running[name]
        os.kill(process.pid, signal.SIGKILL)
        process.popen.wait(10)
        return [process.pid]

    def kill_pid(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def still(self, name: str, look: Callable[[list[int]], object], *, seconds: float) -> Iterator[list[int]]:
        """Its pids, stopped at a moment of which `look` says yes, or after so many seconds at any; then SIGCONT."""
        end = time.monotonic() + seconds
        while True:
            pids = self.pids(name)
            try:
                _signal(pids, signal.SIGSTOP)
                # One that waits for a core stops when it gets it, and may end a node before.
                wait_for(lambda: not any(map(_runs, pids)), what=f"{name}, stopped")  # noqa: B023  # called here and now
                if look(pids) or time.monotonic() > end:
                    yield pids
                    return
            finally:
                _signal(pids, signal.SIGCONT)
            time.sleep(LOOK_SECONDS / 4)  # it has to be let work, or it takes nothing


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0] not in "TZ"
    except OSError:  # gone
        return False


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has died meanwhile, which may be why we are here
            os.kill(pid, number)
