"""`make demo`: a farm comes up, and what it promises is shown by running it. Nothing stays running.

1  an agent streams its tokens; another graph stops for a human and goes on with the answer
2  a thread of twelve nodes loses its worker by kill -9 in the middle of one, and ends right
3  another tenant asks for the thread and gets what it would get for one that does not exist
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import NotFoundError

from agentfarm import ids
from agentfarm.local import farm
from agentfarm.local.look import Execution, Holder, Look, looking
from agentfarm.local.processes import die_with_parent, tail, wait_until
from agentfarm.local.services import Services
from agentfarm.local.state import make_folder
from agentfarm.local.supervisor import read_supervisor

#: More than `run` gives its processes (run.py): it says which of them does not start.
UP_SECONDS = 660.0
RUN_SECONDS = 60.0
STOP_SECONDS = 60.0

INDENT = " " * 12

QUESTION = "How many words has the Gettysburg Address? Multiply that by 3."
EXPENSE: dict[str, Any] = {"payee": "Atlas Instruments", "purpose": "an oscilloscope", "amount_cents": 129_900}

STEPS = tuple(f"step_{number:02d}" for number in range(1, 13))
STEP_SECONDS = 0.4
VICTIM = "step_05"


class StoryBroken(Exception):
    """Something did not happen as the story tells it. The sentence says what and where to look."""


@dataclass
class Story:
    """Two tenants' clients, a look at who executes what, and the clock of the demo."""

    ours: SyncLangGraphClient
    theirs: SyncLangGraphClient
    look: Look
    folder: Path
    began: float
    thread_id: str = ""

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {line}", flush=True)

    # -- 1

    def stream_tokens(self) -> None:
        thread = self.ours.threads.create()
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]}
        self.say(f"1  tenant demo asks the graph `agent`: {QUESTION}")
        tokens, first, began = 0, 0.0, time.monotonic()
        print(INDENT, end="", flush=True)
        stream = self.ours.runs.stream(thread["thread_id"], "agent", input=asked, stream_mode="messages-tuple")
        for event in stream:
            check(event.event != "error", f"the run failed: {event.data}")
            if event.event != "messages":
                continue
            chunk, metadata = cast("tuple[dict[str, Any], dict[str, Any]]", event.data)
            text = chunk.get("content")
            if metadata.get("langgraph_node") == "model" and text:
                first = first or time.monotonic() - began
                tokens += 1
                print(text.replace("\n", f"\n{INDENT}"), end="", flush=True)
        print()
        check(tokens > 1, f"the model's answer came in {tokens} piece(s), not token by token")
        self.say(f"   {tokens} tokens: the first after {first:.2f} s, the last after {time.monotonic() - began:.2f} s")

    def ask_a_human(self) -> None:
        thread = self.ours.threads.create()
        thread_id = thread["thread_id"]
        stopped = cast("dict[str, Any]", self.ours.runs.wait(thread_id, "approval", input={"expense": EXPENSE}))
        check("__interrupt__" in stopped, "the graph `approval` did not stop for a human")
        question = stopped["__interrupt__"][0]["value"]["question"]
        check(self.ours.threads.get(thread_id)["status"] == "interrupted", "the thread is not marked as interrupted")
        self.say(f"   `approval` stopped for a human: {question}")
        ended = cast(
            "dict[str, Any]", self.ours.runs.wait(thread_id, "approval", command={"resume": {"approved": True}})
        )
        check(ended.get("status") == "booked", f"the approved expense is {ended.get('status')!r}, not booked")
        amount = ended["booking"]["amount_cents"] / 100
        self.say(f"   answered Command(resume={{'approved': True}}): {ended['status']}, {amount:.2f}")

    # -- 2

    def survive_a_kill(self) -> None:
        self.thread_id = self.ours.threads.create()["thread_id"]
        run = self.ours.runs.create(self.thread_id, "twelve_steps", input={"delay_seconds": STEP_SECONDS})
        run_id = run["run_id"]
        self.say(f"2  a run of {len(STEPS)} nodes, {STEP_SECONDS} s each, has begun")
        holder = self._wait_for_holder(run_id)
        mine = read_supervisor(self.folder)["children"]
        check(holder.pid in mine.values(), f"{VICTIM} is held by pid {holder.pid}, which is not of this farm")
        killed_at = self.look.now()
        os.kill(holder.pid, signal.SIGKILL)
        self.say(f"   kill -9 {holder.pid}: {short(holder.worker)}, in the middle of {VICTIM}")
        self._wait_for_end(run_id)
        line = self.look.line_of(run_id)
        self._check_line(run_id, line)
        victim = next(one for one in line if one.node == VICTIM)
        check(victim.started_at is not None, f"{VICTIM} has no start")
        recovery = (cast("Any", victim.started_at) - killed_at).total_seconds()
        print(render_line(line))
        self.say(f"   the run ended right; {VICTIM} ran again {recovery:.2f} s after the kill")

    def _wait_for_holder(self, run_id: str) -> Holder:
        found: list[Holder] = []

        def look() -> bool:
            holder = self.look.find_holder(run_id, VICTIM)
            found.extend([holder] if holder else [])
            return bool(found)

        check(wait_until(look, seconds=RUN_SECONDS), f"no worker took {VICTIM} within {RUN_SECONDS:.0f} s")
        return found[0]

    def _wait_for_end(self, run_id: str) -> None:
        def over() -> bool:
            return self.ours.runs.get(self.thread_id, run_id)["status"] not in ("pending", "running")

        check(wait_until(over, seconds=RUN_SECONDS), f"the run was not over {RUN_SECONDS:.0f} s after the kill")
        status = self.ours.runs.get(self.thread_id, run_id)["status"]
        check(status == "success", f"the run ended as {status!r}")

    def _check_line(self, run_id: str, line: list[Execution]) -> None:
        values = cast("dict[str, Any]", self.ours.threads.get_state(self.thread_id)["values"])
        check(tuple(values["log"]) == STEPS, f"the state tells of {values['log']}, not of every step once")
        check(tuple(one.node for one in line) == STEPS, f"the run's executions are {[one.node for one in line]}")
        again = [one.node for one in line if one.attempts > 1]
        check(again == [VICTIM], f"executed again: {again}, where only {VICTIM} lost its worker")

    # -- 3

    def show_the_wall(self) -> None:
        theirs = self._refusal(self.thread_id)
        missing = self._refusal(str(ids.new_id()))
        check(theirs == missing, f"the answer for another's thread tells that it exists: {theirs} and {missing}")
        self.say(
            f"3  tenant other asks for demo's thread: {theirs[0]} {theirs[1]}, as for a thread that does not exist"
        )

    def _refusal(self, thread_id: str) -> tuple[int, str]:
        try:
            self.theirs.threads.get(thread_id)
        except NotFoundError as error:
            return error.response.status_code, error.response.text
        raise StoryBroken(f"tenant other was given thread {thread_id} of tenant demo")


def demo(folder: Path, config: Path) -> int:
    """0 when all went as told. Ends what it started, also when it fails."""
    began = time.monotonic()
    services = Services(folder)
    make_folder(services.folder)
    if running := read_supervisor(services.folder):
        print(
            f"A farm runs already (pid {running['pid']}); the demo kills workers and ends its farm. "
            f"End that one with `make stop FOLDER={services.folder}`, or run the demo beside it: "
            "`make demo FOLDER=.farm-demo`.",
            file=sys.stderr,
        )
        return 2
    try:
        with _farm(services.folder, config, began) as facts:
            _tell(services, facts, began)
    except StoryBroken as broken:
        print(f"\nThe demo failed: {broken}\nLogs: {services.folder / 'logs'}", file=sys.stderr, flush=True)
        return 1
    print(f"{time.monotonic() - began:6.1f} s  all has ended; `make run` brings it up again, with these threads in it")
    return 0


def _tell(services: Services, facts: dict[str, Any], began: float) -> None:
    access = farm.read_access(services.folder)
    with (
        get_sync_client(url=access["AGENTFARM_URL"], api_key=access["AGENTFARM_API_KEY"]) as ours,
        get_sync_client(url=access["AGENTFARM_URL"], api_key=access["AGENTFARM_API_KEY_2"]) as theirs,
        looking(services.environment()["DATABASE_ADMIN_URL"]) as look,
    ):
        story = Story(ours, theirs, look, services.folder, began)
        for chapter in (story.stream_tokens, story.ask_a_human, story.survive_a_kill, story.show_the_wall):
            try:
                chapter()
            except StoryBroken:
                raise
            except Exception as error:
                # Whatever a client or driver raises: the reader needs to know where in the story it was.
                raise StoryBroken(f"{chapter.__name__}: {type(error).__name__}: {error}") from error
        story.say(f"4  while a farm runs: admin {facts['admin']}, Flower {facts['flower']}, docs {facts['url']}/docs")


@contextmanager
def _farm(folder: Path, config: Path, began: float) -> Iterator[dict[str, Any]]:
    """`run` as a process of its own; what it wrote down once it is ready."""
    log = folder / "logs" / "farm.log"
    log.parent.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "agentfarm.local",
        "run",
        "--folder",
        str(folder),
        "--config",
        str(config),
        "--any-port",
        "--quiet",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=farm.PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            process_group=0,  # Ctrl-C is ours: we end it
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    try:
        facts: dict[str, Any] = {}

        def ready() -> bool:
            facts.update(read_supervisor(folder))
            return bool(facts.get("ready")) or process.poll() is not None

        wait_until(ready, seconds=UP_SECONDS)
        if not facts.get("ready"):
            said = tail(log, 20).replace(" | ", "\n  ")
            raise StoryBroken(f"the farm did not come up within {time.monotonic() - began:.0f} s:\n  {said}")
        names = ", ".join(facts["children"])
        print(f"{time.monotonic() - began:6.1f} s  PostgreSQL, Valkey, {names} are up at {facts['url']}", flush=True)
        yield facts
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def render_line(line: list[Execution]) -> str:
    rows = [f"{INDENT}{'node':<9} {'worker':<18} {'attempt':>7} {'seconds':>8}"]
    for one in line:
        seconds = "" if one.seconds is None else f"{one.seconds:.2f}"
        lost = f"   taken over from {', '.join(map(short, one.lost_to))}" if one.lost_to else ""
        rows.append(f"{INDENT}{one.node:<9} {short(one.worker):<18} {one.attempts:>7} {seconds:>8}{lost}")
    return "\n".join(rows)


def short(worker: str) -> str:
    """worker-1@some.host/4711 → worker-1/4711"""
    return re.sub(r"@[^/]*", "", worker)


def check(holds: bool, sentence: str) -> None:
    if not holds:
        raise StoryBroken(sentence)
