"""The functional API: entrypoints with tasks, what they remember, what they ask."""

import asyncio
from typing import Any

from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.types import RetryPolicy, interrupt

from tests.contract.differential.scenario import MODES, Run, answer, resume, scenario


class Flaked(Exception):
    """What the flaky task raises."""


@task
def square(number: int) -> int:
    return number * number


@task
async def square_later(number: int) -> int:
    return number * number


@task
def ask(question: str) -> Any:
    return interrupt(question)


@task(retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.001, jitter=False, retry_on=Flaked))
def always_flaked(number: int) -> int:
    raise Flaked(f"number {number}")


@task
def fails(number: int) -> int:
    raise ValueError(f"number {number}")


@entrypoint()
def squares(numbers: list[int]) -> list[int]:
    return [future.result() for future in [square(number) for number in numbers]]


@entrypoint()
def one_after_the_other(numbers: list[int]) -> list[int]:
    return [square(number).result() for number in numbers]


@entrypoint()
async def squares_later(numbers: list[int]) -> list[int]:
    return list(await asyncio.gather(*(square_later(number) for number in numbers)))


@entrypoint()
def remembers(number: int, *, previous: int | None = None) -> int:
    return square(number).result() + (previous or 0)


@entrypoint()
def saves_another(number: int, *, previous: int | None = None) -> "entrypoint.final[int, int]":
    return entrypoint.final(value=(previous or 0) * 10, save=number)


@entrypoint()
def asks(number: int) -> Any:
    first = square(number).result()
    told = interrupt({"question": "how many?", "first": first})
    return {"first": first, "told": told, "second": square(told).result()}


@entrypoint()
def asks_in_tasks(names: list[str]) -> Any:
    return [ask(name).result() for name in names]


@entrypoint()
def asks_twice(number: int) -> Any:
    first = interrupt("first?")
    second = interrupt("second?")
    return [number, first, second]


@entrypoint()
def fails_in_a_task(number: int) -> Any:
    done = square(number).result()
    return fails(done).result()


@entrypoint()
def fails_after_retries(number: int) -> Any:
    return always_flaked(number).result()


@entrypoint()
def survives_a_task(number: int) -> Any:
    try:
        fails(number).result()
    except ValueError as error:
        return f"survived: {error}"
    return "never"


@entrypoint()
def writes(number: int) -> int:
    write = get_stream_writer()
    for n in range(number):
        write({"from": "writes", "n": n})
    return number


@task
def calls_another(number: int) -> int:
    return square(number).result() + 1


@entrypoint()
def nested_tasks(number: int) -> int:
    return calls_another(number).result()


@entrypoint()
def calls_an_entrypoint(numbers: list[int]) -> Any:
    return {"inner": one_after_the_other.invoke(numbers)}


SCENARIOS = [
    scenario("functional_squares", squares, Run([1, 2, 3]), features="functional task", parallel=True),
    scenario("functional_in_order", one_after_the_other, Run([1, 2, 3]), features="functional task"),
    scenario("functional_async", squares_later, Run([4, 5, 6]), features="functional task async", parallel=True),
    scenario("functional_remembers", remembers, Run(2), Run(3), Run(4), features="functional task previous turns"),
    scenario("functional_final", saves_another, Run(2), Run(3), features="functional final previous turns"),
    scenario("functional_asks", asks, Run(3), resume(4), features="functional task interrupts"),
    scenario(
        "functional_asks_by_id",
        asks,
        Run(3),
        answer({"how many?": 5}),
        features="functional task interrupts resume_map",
    ),
    scenario(
        "functional_asks_in_tasks",
        asks_in_tasks,
        Run(["p", "q"]),
        answer({"p": 1}),
        answer({"q": 2}),
        features="functional task interrupts several_in_a_node resume_map",
    ),
    scenario(
        "functional_asks_twice",
        asks_twice,
        Run(1),
        resume("a"),
        resume("b"),
        features="functional interrupts several_in_a_node",
    ),
    scenario("functional_fails", fails_in_a_task, Run(3), features="functional task failing"),
    scenario(
        "functional_fails_after_retries",
        fails_after_retries,
        Run(3),
        features="functional task failing retry_policy",
        parallel=True,
    ),
    scenario("functional_survives", survives_a_task, Run(3), features="functional task failing"),
    scenario("functional_writes", writes, Run(3), features="functional stream_writer"),
    scenario("functional_nested_tasks", nested_tasks, Run(3), features="functional task"),
    scenario(
        "functional_calls_another",
        calls_an_entrypoint,
        Run([1, 2]),
        features="functional task subgraphs subgraph_called",
    ),
    scenario(
        "functional_checkpoints",
        asks,
        Run(3, modes=(*MODES, "checkpoints", "debug")),
        resume(4, modes=(*MODES, "checkpoints", "debug")),
        features="functional task interrupts mode_checkpoints mode_debug",
    ),
    scenario(
        "functional_without_save",
        asks,
        Run(3, durability="exit"),
        resume(4, durability="exit"),
        features="functional task interrupts durability_exit inline",
    ),
]
