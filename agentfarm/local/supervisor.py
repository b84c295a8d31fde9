"""Keeps the farm's processes running until it is told to stop.

One that dies is started again, later each time it dies soon; each writes to a log of its own. They stand in process
groups of their own, so that Ctrl-C reaches the supervisor alone and it can end them in good order; and they die with
it, also by kill -9.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from agentfarm.errors import Misconfigured
from agentfarm.local.farm import Program
from agentfarm.local.processes import command_line, die_with_parent, is_alive, tail
from agentfarm.local.state import write_private

#: After the first death in a row, then twice as long each time.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

#: Who lived this long did not die soon.
SETTLED_SECONDS = 30.0

#: As long as a worker may let its nodes end (AGENTFARM_DRAIN_SECONDS) and give back what has not.
STOP_SECONDS = 25.0

#: Who waits for the end is told this often what it waits for.
TELL_SECONDS = 3.0

#: A log larger than this is put aside when its process starts.
LOG_BYTES = 20 << 20

LOOK_SECONDS = 0.05

Say = Callable[[str], None]


@dataclass
class Child:
    """A program and the process that runs it now."""

    program: Program
    log: Path
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0  # in a row
    not_before: float = 0.0

    def start(self, environment: Mapping[str, str], folder: Path) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            log.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {self.program.name} starts\n".encode())
            log.flush()
            self.popen = subprocess.Popen(
                self.program.command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=die_with_parent(),
            )
        self.started = time.monotonic()

    @property
    def pid(self) -> int | None:
        return self.popen.pid if self.popen else None

    def signal(self, number: int) -> None:
        """The process and, for kill, its whole group: a prefork child ends its node before it notices who is gone."""
        if self.popen is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.popen.pid, number)
            elif self.popen.returncode is None:
                os.kill(self.popen.pid, number)

    def rest(self) -> float:
        """Seconds until it starts again, after it ended."""
        self.deaths = 1 if time.monotonic() - self.started > SETTLED_SECONDS else self.deaths + 1
        return min(FIRST_PAUSE_SECONDS * 2.0 ** (self.deaths - 1), LONGEST_PAUSE_SECONDS)


@dataclass
class Supervisor:
    """Start it, `watch` until something is so, `stop` it. All from one thread: it is the one its children die with."""

    programs: Sequence[Program]
    environment: Mapping[str, str]
    folder: Path  # .farm
    directory: Path  # where the programs stand
    say: Say = print
    children: list[Child] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    told_to_stop: int = 0

    def start(self) -> None:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        self.children = [Child(program, logs / f"{program.name}.log") for program in self.programs]
        for child in self.children:
            child.start(self.environment, self.directory)
        self.note()

    def watch(self, until: Callable[[], bool], *, seconds: float | None = None) -> bool:
        """Keep all running until it is so (True), or told to stop or out of time (False)."""
        end = None if seconds is None else time.monotonic() + seconds
        while not self.told_to_stop:
            if until():
                return True
            if end is not None and time.monotonic() > end:
                return False
            self._restart_the_dead()
            time.sleep(LOOK_SECONDS)
        return False

    def note(self, **facts: Any) -> None:
        """Write down who runs, for `status`, `stop` and the demo."""
        self.facts.update(facts)
        pids = {child.program.name: child.pid for child in self.children}
        write_private(self.folder / "supervisor.json", json.dumps({"pid": os.getpid(), "children": pids, **self.facts}))

    def hopeless(self) -> Child | None:
        """One that died three times and never lived: no restart will help it."""
        return next((child for child in self.children if child.deaths >= 3), None)

    def stop(self) -> None:
        """Ask all to end, wait, and kill who stays. Told twice, kill at once."""
        for child in self.children:
            child.signal(signal.SIGTERM)
        began = told_at = time.monotonic()
        end = began + STOP_SECONDS
        told = self.told_to_stop
        while (living := self._living()) and time.monotonic() < end and self.told_to_stop <= max(told, 1):
            if time.monotonic() - told_at > TELL_SECONDS:
                told_at = time.monotonic()
                names = ", ".join(child.program.name for child in living)
                self.say(f"{names}: ending for {told_at - began:.0f} s of {STOP_SECONDS:.0f} s at most")
            time.sleep(LOOK_SECONDS)
        for child in self._living():
            self.say(f"{child.program.name} does not end; killed (its nodes are taken over by the next worker)")
        for child in self.children:
            child.signal(signal.SIGKILL)
            if child.popen:
                child.popen.wait()
        (self.folder / "supervisor.json").unlink(missing_ok=True)

    def _living(self) -> list[Child]:
        return [child for child in self.children if child.popen and child.popen.poll() is None]

    def _restart_the_dead(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.popen is not None and child.popen.poll() is not None:
                pause = child.rest()
                how = _how_it_ended(child.popen.returncode)
                child.signal(signal.SIGKILL)  # what is left of its group
                self.say(
                    f"{child.program.name} (pid {child.pid}) {how}; starts again in {pause:.1f} s. Its log: {child.log}"
                )
                child.popen, child.not_before = None, now + pause
            elif child.popen is None and now >= child.not_before:
                child.start(self.environment, self.directory)
                self.say(f"{child.program.name} started again (pid {child.pid})")
                self.note()

    def last_words(self, child: Child) -> str:
        return tail(child.log, 12).replace(" | ", "\n  ")


def _how_it_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


@contextmanager
def stop_signals(supervisor: Supervisor) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the supervisor to stop; a second one, to hurry."""

    def ask(number: int, frame: FrameType | None) -> None:
        supervisor.told_to_stop += 1

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Raises Misconfigured where another supervisor serves this folder. What a killed one left behind is ended."""
    with (folder / "supervisor.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = read_supervisor(folder)
            raise Misconfigured(
                f"A farm runs already from {folder} (pid {running.get('pid', '?')}, {running.get('url', 'starting')}). "
                f"End it with Ctrl-C or `make stop FOLDER={folder}`, or run a second one: "
                "`make run FOLDER=.farm-2 PORT=2025`."
            ) from None
        _end_leftovers(folder)
        yield


def read_supervisor(folder: Path) -> dict[str, Any]:
    """What the running one wrote down; {} where none runs."""
    try:
        noted: dict[str, Any] = json.loads((folder / "supervisor.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return noted if is_alive(noted.get("pid")) else {}


def _end_leftovers(folder: Path) -> None:
    """Where the kernel does not end children with their parent (macOS)."""
    try:
        noted = json.loads((folder / "supervisor.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    for pid in noted.get("children", {}).values():
        line = command_line(pid) if is_alive(pid) else None
        if line and ("-A workers" in line or "manage.py serve" in line):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
    (folder / "supervisor.json").unlink(missing_ok=True)
