"""Twelve nodes in a line, each of which takes a while: made to be interrupted by killing workers.

Each step hashes what the step before it left, so that the last digest is right only if every step ran on its
predecessor's result and was counted once. `expected_digest` tells what it must be.
"""

import hashlib
import operator
import time
from typing import Annotated, Protocol

from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

STEPS = 12
DEFAULT_DELAY_SECONDS = 0.3
NAMES = tuple(f"step_{number:02d}" for number in range(1, STEPS + 1))


class Steps(TypedDict, total=False):
    """delay_seconds: how long a step takes (0.3); seed: where the digests begin; log: the steps that ran, in order."""

    delay_seconds: float
    seed: str
    log: Annotated[list[str], operator.add]
    digest: str


class Step(Protocol):
    def __call__(self, state: Steps) -> Steps: ...


def make_step(name: str) -> Step:
    def step(state: Steps) -> Steps:
        time.sleep(state.get("delay_seconds", DEFAULT_DELAY_SECONDS))
        return {"log": [name], "digest": next_digest(state.get("digest") or state.get("seed", ""), name)}

    return step


def next_digest(before: str, name: str) -> str:
    return hashlib.sha256(f"{before}|{name}".encode()).hexdigest()


def expected_digest(seed: str = "") -> str:
    digest = seed
    for name in NAMES:
        digest = next_digest(digest, name)
    return digest


builder = StateGraph(Steps)
for step_name in NAMES:
    builder.add_node(step_name, make_step(step_name))
for before, after in zip((START, *NAMES), (*NAMES, END), strict=True):
    builder.add_edge(before, after)

graph = builder.compile(name="twelve_steps")
