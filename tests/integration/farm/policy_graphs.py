"""Graphs whose nodes fail, wait and hang on purpose, and write down what they were told: for the tests of policies.

Workers and tests share a folder, the input's `journal`: a node that ran leaves a line there, and a node that is to be
killed hangs the first time, and not the second.
"""

import asyncio
import operator
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from langgraph.errors import NodeError, NodeTimeoutError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, RetryPolicy, Send, TimeoutPolicy, interrupt
from typing_extensions import TypedDict


class Log(TypedDict, total=False):
    journal: str
    fails: int
    log: Annotated[list[str], operator.add]


class Flaked(Exception):
    """What a node raises that is to be tried again."""


def note(journal: str, line: str) -> None:
    with (Path(journal) / "lines").open("a") as lines:
        lines.write(line + "\n")


def hang_once(journal: str, name: str) -> None:
    """The first process that comes here stays, until it is killed."""
    try:
        (Path(journal) / name).touch(exist_ok=False)
    except FileExistsError:
        return
    threading.Event().wait(60)


def _line(*nodes: tuple[str, Any], **options: Any) -> Any:
    builder = StateGraph(Log)
    for i, (name, node) in enumerate(nodes):
        builder.add_node(name, node, **options)
        builder.add_edge(nodes[i - 1][0] if i else START, name)
    return builder.compile()


def _say(name: str) -> Callable[[Any], Any]:
    def node(state: Any) -> Any:
        return {"log": [name]}

    return node


# --------------------------------------------------------------------------- retries

#: With AGENTFARM_RETRY_MESSAGE_SECONDS=0.5: the first delay is slept, the second and the third are messages.
TRIES = RetryPolicy(
    max_attempts=4, initial_interval=0.1, backoff_factor=8.0, max_interval=0.9, jitter=False, retry_on=Flaked
)

#: So long that nobody waits for it.
FOR_EVER = RetryPolicy(max_attempts=3, initial_interval=3600.0, jitter=False, retry_on=Flaked)


def _flaky(state: Log, runtime: Runtime[None]) -> Log:
    info = runtime.execution_info
    assert info is not None
    note(state["journal"], f"{info.node_attempt} {info.node_first_attempt_time} {time.time()}")
    if info.node_attempt <= state["fails"]:
        raise Flaked("not yet")
    return {"log": [f"flaky in try {info.node_attempt}"]}


async def _aflaky(state: Log, runtime: Runtime[None]) -> Log:
    return _flaky(state, runtime)


def _gives_up(state: Log, error: NodeError) -> Log:
    return {"log": [f"gave up: {type(error.error).__name__}"]}


def _beside(node: Any, policy: RetryPolicy) -> Any:
    """The flaky node, one beside it, and one after both."""
    builder = StateGraph(Log)
    builder.add_node("flaky", node, retry_policy=policy, error_handler=_gives_up)
    builder.add_node("beside", _say("beside"))
    builder.add_node("after", _say("after"))
    for name in ("flaky", "beside"):
        builder.add_edge(START, name)
        builder.add_edge(name, "after")
    return builder.compile()


flaky = _beside(_flaky, TRIES)
aflaky = _beside(_aflaky, TRIES)
far = _beside(_flaky, FOR_EVER)
lone_far = _line(("before", _say("before")), ("flaky", _flaky), retry_policy=FOR_EVER)


def _dies_in_its_second_try(state: Log, runtime: Runtime[None]) -> Log:
    assert runtime.execution_info is not None
    number = runtime.execution_info.node_attempt
    note(state["journal"], str(number))
    if number == 2:
        hang_once(state["journal"], "second")
    # Four tries: the first fails, the second dies with its worker, two more fail: the last may succeed.
    if number < 5:
        raise Flaked(str(number))
    return {"log": ["done"]}


dies_between_tries = _line(
    ("node", _dies_in_its_second_try), retry_policy=TRIES._replace(initial_interval=0.9, backoff_factor=1.0)
)

# --------------------------------------------------------------------------- timeouts and error handlers


async def _hangs(state: Log) -> Log:
    await asyncio.sleep(60)
    return {"log": ["hung"]}


async def _is_alive(state: Log, runtime: Runtime[None]) -> Log:
    for _ in range(12):
        await asyncio.sleep(0.1)
        runtime.heartbeat()
    return {"log": ["alive"]}


async def _is_silent(state: Log, runtime: Runtime[None]) -> Log:
    runtime.heartbeat()
    return await _hangs(state)


def _timeouts() -> Any:
    builder = StateGraph(Log)
    run, idle = TimeoutPolicy(run_timeout=0.3), TimeoutPolicy(idle_timeout=0.6, refresh_on="heartbeat")
    retry = TRIES._replace(retry_on=NodeTimeoutError, max_attempts=2, initial_interval=0.6)
    builder.add_node("hangs", _hangs, timeout=run, retry_policy=retry, error_handler=_gives_up)
    builder.add_node("alive", _is_alive, timeout=idle, error_handler=_gives_up)
    builder.add_node("silent", _is_silent, timeout=idle, error_handler=_gives_up)
    for name in ("hangs", "alive", "silent"):
        builder.add_edge(START, name)
    return builder.compile()


timeouts = _timeouts()
slow_step = _line(("fast", _say("fast")), ("hangs", _hangs))
slow_step.step_timeout = 0.5


def _breaks(state: Log) -> Log:
    note(state["journal"], "node")
    raise Flaked("broken")


def _handles(state: Log, error: NodeError) -> Command[str]:
    note(state["journal"], "handler")
    hang_once(state["journal"], "handler")
    return Command(
        update={"log": [f"handled {type(error.error).__name__}({error.error}) of {error.node}"]}, goto="after"
    )


def _handled() -> Any:
    builder = StateGraph(Log)
    builder.add_node("node", _breaks, error_handler=_handles)
    builder.add_node("after", _say("after"))
    builder.add_edge(START, "node")
    return builder.compile()


handled = _handled()

# --------------------------------------------------------------------------- wide and long


class Item(TypedDict):
    number: int
    journal: str
    seconds: float


class Wide(Log, total=False):
    count: int
    seconds: float


def _item(item: Item) -> Any:
    began = time.time()
    time.sleep(item["seconds"])
    if item["journal"]:
        note(item["journal"], f"{began} {time.time()}")
    return {"log": [str(item["number"])]}


def _fan_out() -> Any:
    def spread(state: Wide) -> list[Send]:
        shared = {"journal": state.get("journal", ""), "seconds": state.get("seconds", 0.0)}
        return [Send("item", {"number": number, **shared}) for number in range(state["count"])]

    builder = StateGraph(Wide)
    builder.add_node("item", _item)
    builder.add_node("after", _say("after"))
    builder.add_conditional_edges(START, spread, ["item"])
    builder.add_edge("item", "after")
    return builder.compile()


fan_out = _fan_out()


def _loop() -> Any:
    builder = StateGraph(Log)
    builder.add_node("again", _say("again"))
    builder.add_edge(START, "again")
    builder.add_edge("again", "again")
    return builder.compile()


loop = _loop()


def _deferred() -> Any:
    """`last` waits for both ways, the long and the short."""
    builder = StateGraph(Log)
    for name in ("short", "long", "longer"):
        builder.add_node(name, _say(name))
    builder.add_node("last", _say("last"), defer=True)
    builder.add_edge(START, "short")
    builder.add_edge(START, "long")
    builder.add_edge("long", "longer")
    builder.add_edge("short", "last")
    builder.add_edge("longer", "last")
    builder.add_edge("last", END)
    return builder.compile()


deferred = _deferred()

# --------------------------------------------------------------------------- @task, inside of entrypoints and nodes


@task
def counted(journal: str, name: str) -> str:
    note(journal, name)
    return name


@entrypoint()
def flow(given: dict[str, Any]) -> list[str]:
    journal = given["journal"]
    futures = [counted(journal, name) for name in ("one", "two")]
    done = [future.result() for future in futures]
    if given.get("hangs"):
        hang_once(journal, "flow")
    if given.get("asks"):
        done.append(interrupt("go on?"))
    done.append(counted(journal, "three").result())
    return done


def _calls_tasks(state: Log) -> Log:
    done = counted(state["journal"], "one").result()
    hang_once(state["journal"], "node")
    return {"log": [done, counted(state["journal"], "two").result()]}


tasks_in_a_node = _line(("before", _say("before")), ("calls", _calls_tasks))

# --------------------------------------------------------------------------- durability


def _noted(name: str, *, hangs: bool = False) -> Callable[[Log], Log]:
    def node(state: Log) -> Log:
        note(state["journal"], name)
        if hangs:
            hang_once(state["journal"], name)
        return {"log": [name]}

    return node


three = _line(("a", _noted("a")), ("b", _noted("b", hangs=True)), ("c", _noted("c")))
