"""Child processes of a benchmark: each logs to a file, dies with this process, and is ended by its own pid."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agentfarm.local.processes import die_with_parent, tail

POLL_SECONDS = 0.02


class Child:
    """One process, started in `start`; may be killed and started again."""

    def __init__(
        self, name: str, command: Sequence[str], *, folder: Path, root: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self.command, self.root, self.environment = name, list(command), root, dict(environment)
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self.process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  the reason is in agentfarm.local.processes
            )

    def check_alive(self) -> None:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended; the last of {self.log}:\n{tail(self.log, 20)}")

    def kill(self) -> None:
        """As a crash would: no clean-up of any kind."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, within_seconds: float = 20.0) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            self.kill()


def wait_for(fact: Callable[[], bool], what: str, *, within_seconds: float, children: Sequence[Child] = ()) -> None:
    """Look until it is so. Raises TimeoutError, or RuntimeError when one of the children ended meanwhile."""
    deadline = time.monotonic() + within_seconds
    while not fact():
        for child in children:
            child.check_alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def run_once(command: Sequence[str], *, root: Path, environment: Mapping[str, str]) -> str:
    """A command's standard output. Raises RuntimeError with what it said when it fails."""
    done = subprocess.run(list(command), cwd=root, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-1500:] or done.stdout[-1500:]}")
    return done.stdout
