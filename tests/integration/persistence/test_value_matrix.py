"""Every kind of value through every way between two nodes, over PostgreSQL, each message on a worker that remembers
nothing: what arrives is what was sent, or the run fails and says which value cannot be kept, and where it was.

The kinds are those of tests/contract/test_serde_values.py. Two ways end at a cache or a store: a node's cached result
comes back as what it was, or the node is executed again; an item of the store is JSON, and so has a rule of its own, as
has what a client sends as an answer over HTTP, and the events of a stream.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.channels import UntrackedValue
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy, Command, Send, interrupt
from redis import Redis

from agentfarm.engine.jsonable import to_json
from agentfarm.engine.steps import SegmentResult
from agentfarm.engine.store_config import StoreConfig
from agentfarm.errors import InvalidInput, ValueLost
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.node_cache import RedisNodeCaches
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.persistence.store import PostgresStores
from agentfarm.tenancy import Tenant
from tests.contract.test_serde_values import REFUSED, TYPES, VALUES, same
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.test_engine_over_postgres import Farm

KEPT = {name: value for name, value in VALUES.items() if name not in REFUSED}


@dataclass
class Way:
    """How one value is handed on. `given`: what it is when the graph runs; `got`: what arrived."""

    graph: Callable[["Way"], Any]
    place: str
    inputs: Callable[[Any], list[Any]] = lambda value: [{"n": 1}]
    kwargs: Callable[[Any], dict[str, Any]] = lambda value: {}
    given: Any = None
    got: list[Any] = field(default_factory=list)


class State(TypedDict, total=False):
    n: int
    value: Any


class WithUntracked(State, total=False):
    untracked: Annotated[Any, UntrackedValue]


def line(way: Way, first: Any, *, second: Any = None, schema: Any = State) -> StateGraph[Any]:
    """a hands over, b looks at what it got."""
    types = TYPES  # what the graph's nodes close over is part of its state

    def b(state: Any) -> Any:
        assert types
        way.got.append(second(state) if second else state["value"])

    builder: StateGraph[Any] = StateGraph(schema).add_node("a", first).add_node("b", b)
    return builder.add_edge(START, "a").add_edge("b", END)


def by_state(way: Way) -> Any:
    return line(way, lambda state: {"value": way.given}).add_edge("a", "b")


def by_untracked_value(way: Way) -> Any:
    graph = line(way, lambda s: {"untracked": way.given}, second=lambda s: s["untracked"], schema=WithUntracked)
    return graph.add_edge("a", "b")


def by_send(way: Way) -> Any:
    graph = line(way, lambda state: {"n": 2}, second=lambda arg: arg["deep"][0])
    return graph.add_conditional_edges("a", lambda _: [Send("b", {"deep": [way.given]})] * 2, ["b"])


def by_command(way: Way) -> Any:
    graph = line(way, lambda state: Command(update={"value": way.given}, goto="b"))
    graph.nodes["a"].ends = ("b",)
    return graph


def by_input(way: Way) -> Any:
    return line(way, lambda state: {"n": 2}).add_edge("a", "b")


def by_context(way: Way) -> Any:
    def a(state: Any, runtime: Runtime[Any]) -> Any:
        way.got.append(runtime.context["value"])

    return line(way, a)


def by_interrupt(way: Way) -> Any:
    return line(way, lambda state: {"n": interrupt(way.given)})


def by_resume(way: Way) -> Any:
    return line(way, lambda state: way.got.append(interrupt("?")))


def by_task(way: Way) -> Any:
    types = TYPES

    @task
    def make() -> Any:
        assert types
        way.got.append("made")
        return way.given

    @entrypoint()
    def workflow(_: Any) -> Any:
        made = make().result()
        interrupt("?")
        way.got.append(made)
        return None

    return workflow


WAYS: dict[str, Way] = {
    "state": Way(by_state, "Channel 'value' holds a "),
    "argument of Send": Way(by_send, "The argument of Send to node 'b' holds a "),
    "update of a Command": Way(by_command, "Channel 'value' holds a "),
    "value of interrupt()": Way(by_interrupt, "The value of interrupt() holds a "),
    "result of a task": Way(by_task, "The result of a task holds a ", lambda value: [{}, Command(resume="go on")]),
}
#: Refused before there is a run.
ADMITTED: dict[str, Way] = {
    "input": Way(by_input, "", lambda value: [{"value": value}]),
    "context": Way(by_context, "", kwargs=lambda value: {"context": {"value": value}}),
    "answer in a Command": Way(by_resume, "", lambda value: [{"n": 1}, Command(resume=value)]),
    "answer by interrupt's id": Way(by_resume, "", lambda value: [{"n": 1}, value]),
}


class Steps(Farm):
    """Ends a run whose segment cannot be saved, as flow/step.py does."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for worker in self.workers:
            worker.commit = partial(_commit_or_fail, worker.executions.commit)  # type: ignore[method-assign]


def _commit_or_fail(commit: Any, claimed: Any, result: Any, *, lease_next: bool = False) -> Any:
    try:
        return commit(claimed, result, lease_next=lease_next)
    except ValueLost as error:
        return commit(claimed, SegmentResult(status="error", error=error))


@pytest.fixture
def send(home: Home, hands: Callable[..., Hand], acme: Tenant) -> Callable[..., Any]:
    """Hand a value over; what became of the last run, and the thread's state."""

    def run(way: Way, value: Any, *, farms: dict[int, Farm] | None = None) -> tuple[Any, Any]:
        farms = {} if farms is None else farms
        way.given = value
        way.got.clear()
        farm = farms.get(id(way)) or farms.setdefault(id(way), Steps(home, hands, acme, way.graph(way)))
        thread_id, ended = uuid4(), None
        for given in way.inputs(value):
            asked = [] if ended is None else _questions(farm, thread_id)
            by_id = Command(resume={asked[0].id: given}) if given is value and asked else given
            ended = farm.run(by_id, thread_id, **way.kwargs(value))
        return ended, _questions(farm, thread_id)

    return run


def _questions(farm: Farm, thread_id: Any) -> list[Any]:
    saver = TenantSaver(farm.home.app, farm.tenant.id, farm.serde)
    found = saver.get_tuple({"configurable": {"thread_id": str(thread_id)}})
    assert found is not None
    return [one for _, channel, asked in found.pending_writes or [] if channel == "__interrupt__" for one in asked]


def assert_arrived(got: Any) -> None:
    changed = [name for name, value in KEPT.items() if not same(value, got[name])]
    assert changed == []
    assert got is not KEPT


@pytest.mark.parametrize("name", [*WAYS, *ADMITTED, "untracked value"])
def test_every_value_that_is_kept_arrives_as_what_it_was(name: str, send: Callable[..., Any]) -> None:
    way = {**WAYS, **ADMITTED, "untracked value": Way(by_untracked_value, "")}[name]

    ended, questions = send(way, KEPT)

    if name == "value of interrupt()":
        assert ended.status == "interrupted"
        assert_arrived(questions[0].value)
        return
    assert ended.error is None
    assert_arrived(way.got[-1])
    assert way.got.count("made") <= 1  # the result of a task was loaded, not made again


@pytest.mark.parametrize("name", WAYS)
def test_every_value_that_cannot_be_kept_fails_the_run_which_says_where_it_was(
    name: str, send: Callable[..., Any]
) -> None:
    way, farms = WAYS[name], dict[int, Farm]()

    for kind in sorted(REFUSED):
        ended, _ = send(way, VALUES[kind], farms=farms)

        assert (ended.status, ended.error["error"]) == ("error", "ValueLost"), kind
        assert ended.error["message"].startswith(way.place), kind
        assert "cannot be kept between two nodes" in ended.error["message"]
        assert "\ud800" not in ended.error["message"]


@pytest.mark.parametrize("name", ADMITTED)
def test_what_a_run_is_asked_for_is_refused_before_there_is_a_run(name: str, send: Callable[..., Any]) -> None:
    farms = dict[int, Farm]()

    for kind in sorted(REFUSED - {"class object"}):  # as an answer a class is stock's own affair
        with pytest.raises(ValueLost, match="What the run was asked for holds a "):
            send(ADMITTED[name], VALUES[kind], farms=farms)


def test_a_live_object_in_an_untracked_value_stays_with_its_run(send: Callable[..., Any]) -> None:
    way = Way(by_untracked_value, "")

    ended, _ = send(way, VALUES["lock"])

    assert ended.status == "success"
    assert way.got == [VALUES["lock"]]


@pytest.mark.parametrize("name", sorted(VALUES))
def test_every_value_has_a_form_as_an_event(name: str) -> None:
    json.loads(to_json({"value": VALUES[name]}))


def test_a_graph_that_asks_for_plain_data_goes_on_and_its_runs_record_says_so(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    way = Way(by_state, "", given={"raw": VALUES["unknown model"]})
    farm = Farm(home, hands, acme, by_state(way))
    farm.serde = FaithfulSerializer(types=farm.serde.types, softens=True, lenient=True)
    thread_id = uuid4()

    ended = farm.run({"n": 1}, thread_id)
    farm.run({"n": 1}, thread_id)

    assert (ended.status, way.got) == ("success", [{"raw": {"a": 1}}] * 2)
    said = [["Channel 'value'", "tests.contract.test_serde_values.Unknown"]]
    assert home.query("SELECT warnings FROM farm.run") == [(said,), (said,)]


# --------------------------------------------------------------------------- a node's cached result


@pytest.fixture
def cached(
    home: Home, hands: Callable[..., Hand], acme: Tenant, redis_url: str
) -> Iterator[Callable[[Way, Any], tuple[Farm, list[int]]]]:
    """A farm for two runs of a graph whose first node is cached, and how often that one was executed."""
    opened: list[RedisNodeCaches] = []

    def make(way: Way, schema: Any = State) -> tuple[Farm, list[int]]:
        ran: list[int] = []
        types = TYPES

        def a(state: Any) -> Any:
            assert types
            ran.append(1)
            return {"untracked" if schema is WithUntracked else "value": way.given}

        builder = line(way, a, second=lambda s: s.get("untracked", s.get("value")), schema=schema).add_edge("a", "b")
        builder.nodes["a"].cache_policy = CachePolicy(key_func=lambda state: "one")
        farm = Steps(home, hands, acme, builder)
        opened.append(RedisNodeCaches(redis_url, lambda _: farm.serde, max_bytes=1 << 20, max_seconds=60))
        farm.more = {"cache": opened[-1].of(acme.id, "graph")}
        return farm, ran

    yield make
    for caches in opened:
        caches.close()


def test_every_value_of_a_cached_result_arrives_as_what_it_was_and_its_node_is_not_executed(
    cached: Callable[..., Any],
) -> None:
    way = Way(by_state, "", given=KEPT)
    farm, ran = cached(way)

    statuses = [farm.run({"n": 1}, uuid4()).status for _ in range(2)]

    assert statuses == ["success", "success"]
    assert ran == [1]
    assert_arrived(way.got[-1])
    assert way.got[-1] is not way.got[0]


def test_a_result_with_a_value_that_cannot_be_kept_is_never_cached(
    cached: Callable[..., Any], acme: Tenant, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a channel the run fails and says which; of an untracked value it goes on, and the node is executed again."""
    by_channel, by_untracked = Way(by_state, ""), Way(by_untracked_value, "")
    farm, _ = cached(by_channel)
    for kind in sorted(REFUSED):
        by_channel.given = VALUES[kind]

        ended = farm.run({"n": 1}, uuid4())

        assert (ended.status, ended.error["error"]) == ("error", "ValueLost"), kind
        assert ended.error["message"].startswith("Channel 'value' holds a "), kind
    caplog.clear()
    by_untracked.given = VALUES["lock"]
    farm, ran = cached(by_untracked, WithUntracked)

    statuses = [farm.run({"n": 1}, uuid4()).status for _ in range(2)]

    assert statuses == ["success", "success"]
    assert ran == [1, 1]
    assert told_of(caplog) == [("a", "_thread.lock")]
    with Redis.from_url(redis_url) as client:
        assert client.keys(f"t:{acme.id.hex}:*") == []


def told_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """(node, type) of what was told of results that are not cached."""
    return [
        (record.node, record.type)  # type: ignore[attr-defined]  # of `extra`
        for record in caplog.records
        if "is not cached" in record.message
    ]


# --------------------------------------------------------------------------- an item of the store

#: What JSON has room for. All else is refused.
STORED = {
    *("tuple", "tuple nested", "tuple subclass", "OrderedDict in a tuple", "list subclass"),
    *("OrderedDict", "Counter", "defaultdict", "defaultdict of a lambda", "dict subclass", "unknown dict subclass"),
    *("lc:1 envelope from a client", "texts with the marks of bytes", "any text", "text of a message", "str subclass"),
    *("IntEnum", "IntFlag combined", "StrEnum", "str Enum", "unknown enum"),
    *("str Enum as dict key", "str subclass as dict key"),
    *("int > 64 bit", "negative big int", "int subclass", "float -0.0"),
}


def as_json(value: Any) -> Any:
    """The same with lists for tuples, of Python's own types, and what jsonb makes of the order of keys and of -0.0."""
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    if isinstance(value, dict):
        in_order = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {str.__str__(key): as_json(value[key]) for key in in_order}
    if isinstance(value, str):
        return str.__str__(value)
    return value + 0.0 if isinstance(value, float) else int(value)


def test_every_item_of_the_store_comes_back_equal_or_is_refused_before_it_is_written(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    refused: dict[str, str] = {}

    def a(state: Any, runtime: Runtime[Any]) -> Any:
        for name, value in VALUES.items():
            try:
                runtime.store.put(("values",), name, {"deep": [value]})
            except InvalidInput as error:
                refused[name] = str(error)

    def b(state: Any, runtime: Runtime[Any]) -> Any:
        return {"value": {item.key: item.value["deep"][0] for item in runtime.store.search(("values",), limit=1000)}}

    builder: StateGraph[Any] = StateGraph(State).add_node("a", a).add_node("b", b)
    farm = Steps(home, hands, acme, builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", END))
    stores = PostgresStores(Databases(home.app), StoreConfig(), max_value_bytes=1 << 20)
    farm.more = {"store": stores.of(acme)}
    thread_id = uuid4()

    ended = farm.run({"n": 1}, thread_id)

    assert ended.error is None
    back = farm.history(thread_id)[0][0]["value"]
    assert [name for name, value in back.items() if not same(as_json(VALUES[name]), value)] == []
    assert set(back) == STORED
    assert set(refused) == VALUES.keys() - STORED
    for name, sentence in refused.items():
        assert re.match(r"(a key of )?value\.deep\[0\].*: (is|has) .+[;,] .+\.$", sentence, re.DOTALL), (name, sentence)
        assert "\ud800" not in sentence
        assert "\x00" not in sentence


def test_a_refused_item_ends_the_run_with_its_place_and_type_and_what_to_do(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    def a(state: Any, runtime: Runtime[Any]) -> Any:
        runtime.store.put(("values",), "pair", {"at": VALUES["namedtuple"]})

    farm = Steps(home, hands, acme, StateGraph(State).add_node("a", a).add_edge(START, "a"))
    farm.more = {"store": PostgresStores(Databases(home.app), StoreConfig(), max_value_bytes=1 << 20).of(acme)}

    ended = farm.run({"n": 1}, uuid4())

    assert ended.error["error"] == "InvalidInput"
    assert ended.error["message"] == (
        "value.at: is a Point, whose fields have names that a list has not; store _asdict() of it."
    )
    assert home.query("SELECT count(*) FROM farm.store_item") == [(0,)]
