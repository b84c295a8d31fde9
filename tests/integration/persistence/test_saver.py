"""The tenant's saver: walls, the head, clocks, what is stored once, and graphs that go as with LangGraph's own."""

from collections.abc import Callable
from typing import Annotated, Any, TypedDict
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from agentfarm.errors import HeadMoved, InvalidId, NotFound, ThreadBusy, ValueLost
from agentfarm.persistence.checkpoints import PAGE, TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.runs.parts import new_run

MakeSaver = Callable[..., TenantSaver]


@pytest.fixture
def saver_of(home: Home) -> MakeSaver:
    def make(tenant: Tenant, *, guard_idle: bool = False, graph: Any = None) -> TenantSaver:
        return TenantSaver(home.app, tenant.id, serde_of(graph), guard_idle=guard_idle)

    return make


def config_of(thread_id: UUID | str, checkpoint_id: str | None = None, ns: str = "") -> RunnableConfig:
    configurable = {"thread_id": str(thread_id), "checkpoint_ns": ns}
    return {"configurable": configurable | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


def checkpoint_of(values: dict[str, Any], *, version: str = "00000001.aaaaaaaa", id: str | None = None) -> Checkpoint:
    made = empty_checkpoint() | {"channel_values": values, "channel_versions": dict.fromkeys(values, version)}
    made["id"] = id or str(uuid6(clock_seq=-1))
    return made  # type: ignore[return-value]  # a TypedDict joined with a dict


def put(
    saver: TenantSaver, config: RunnableConfig, values: dict[str, Any], *, step: int = 0, **more: Any
) -> RunnableConfig:
    checkpoint = checkpoint_of(values, **more)
    return saver.put(config, checkpoint, {"source": "loop", "step": step}, checkpoint["channel_versions"])


def told(found: CheckpointTuple) -> Any:
    """What LangGraph sees of a checkpoint."""
    writes = [(task, channel, value) for task, channel, value in found.pending_writes or []]
    return (
        found.checkpoint["id"],
        found.checkpoint["channel_values"],
        dict(found.metadata),
        found.parent_config,
        writes,
    )


def values_of(saver: TenantSaver, config: RunnableConfig) -> Any:
    found = saver.get_tuple(config)
    return found and found.checkpoint["channel_values"]


# --------------------------------------------------------------------------- walls


def test_two_tenants_with_the_same_thread_id_see_their_own_state(
    saver_of: MakeSaver, acme: Tenant, globex: Tenant
) -> None:
    thread_id = uuid4()
    for tenant in (acme, globex):
        saved = put(saver_of(tenant), config_of(thread_id), {"owner": tenant.slug, "long": tenant.slug * 200})
        saver_of(tenant).put_writes(saved, [("note", tenant.slug)], str(uuid4()))

    for tenant in (acme, globex):
        saver = saver_of(tenant)
        found = saver.get_tuple(config_of(thread_id))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"owner": tenant.slug, "long": tenant.slug * 200}
        assert [value for _, _, value in found.pending_writes or []] == [tenant.slug]
        assert [one.checkpoint["channel_values"]["owner"] for one in saver.list(None)] == [tenant.slug]


def test_what_one_tenant_deletes_prunes_or_copies_leaves_the_other_alone(
    saver_of: MakeSaver, acme: Tenant, globex: Tenant
) -> None:
    thread_id, run_id = uuid4(), uuid4()
    for tenant in (acme, globex):
        checkpoint = checkpoint_of({"a": "x" * 300})
        metadata: Any = {"source": "loop", "step": 0, "run_id": str(run_id)}
        saver_of(tenant).put(config_of(thread_id), checkpoint, metadata, {})
    before = [told(one) for one in saver_of(globex).list(None)]

    saver = saver_of(acme)
    saver.copy_thread(str(thread_id), str(uuid4()))
    saver.prune([str(thread_id)])
    saver.delete_for_runs([str(run_id)])
    saver.delete_thread(str(thread_id))

    assert list(saver_of(acme).list(config_of(thread_id))) == []
    assert [told(one) for one in saver_of(globex).list(None)] == before


def test_an_id_that_is_none_is_refused_before_the_database_is_asked(saver_of: MakeSaver, acme: Tenant) -> None:
    for config in (config_of("../etc"), config_of(uuid4(), "latest"), RunnableConfig(configurable={})):
        with pytest.raises(InvalidId):
            saver_of(acme).get_tuple(config)


# --------------------------------------------------------------------------- the head


def test_the_latest_is_where_the_head_points_whatever_the_ids_say(
    home: Home, saver_of: MakeSaver, acme: Tenant
) -> None:
    thread_id = uuid4()
    first = put(saver_of(acme), config_of(thread_id), {"n": 1})
    put(saver_of(acme), first, {"n": 2})

    home.query("UPDATE farm.thread_head SET head = %s RETURNING 1", first["configurable"]["checkpoint_id"])

    assert values_of(saver_of(acme), config_of(thread_id)) == {"n": 1}


def test_a_put_from_a_head_that_has_moved_is_refused_and_saves_nothing(saver_of: MakeSaver, acme: Tenant) -> None:
    thread_id = uuid4()
    put(saver_of(acme), config_of(thread_id), {"n": 1})
    slow, quick = saver_of(acme), saver_of(acme)
    read_by_slow, read_by_quick = slow.get_tuple(config_of(thread_id)), quick.get_tuple(config_of(thread_id))
    assert read_by_slow is not None
    assert read_by_quick is not None
    put(quick, read_by_quick.config, {"n": 2})

    with pytest.raises(HeadMoved):
        put(slow, read_by_slow.config, {"n": 3})

    assert [one.checkpoint["channel_values"]["n"] for one in quick.list(config_of(thread_id))] == [2, 1]


def test_a_fork_of_an_older_checkpoint_becomes_the_head(saver_of: MakeSaver, acme: Tenant) -> None:
    thread_id = uuid4()
    first = put(saver_of(acme), config_of(thread_id), {"n": 1})
    put(saver_of(acme), first, {"n": 2})

    forker = saver_of(acme)
    assert values_of(forker, first) == {"n": 1}
    put(forker, first, {"n": 3})

    found = saver_of(acme).get_tuple(config_of(thread_id))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": 3}
    assert found.parent_config == first


def test_a_clock_that_is_behind_cannot_put_a_checkpoint_before_its_parent(saver_of: MakeSaver, acme: Tenant) -> None:
    thread_id = uuid4()
    saver = saver_of(acme)
    parent = put(saver, config_of(thread_id), {"n": 1})
    minutes_ago = str(UUID(int=UUID(parent["configurable"]["checkpoint_id"]).int - (1 << 100)))

    child = put(saver, parent, {"n": 2}, id=minutes_ago)

    assert child["configurable"]["checkpoint_id"] > parent["configurable"]["checkpoint_id"]
    assert [one.checkpoint["channel_values"]["n"] for one in saver.list(config_of(thread_id))] == [2, 1]
    assert values_of(saver_of(acme), config_of(thread_id)) == {"n": 2}
    found = saver.get_tuple(child)
    assert found is not None
    assert found.checkpoint["id"] == child["configurable"]["checkpoint_id"]


def test_a_subgraphs_checkpoints_do_not_move_the_threads_head(saver_of: MakeSaver, acme: Tenant) -> None:
    thread_id = uuid4()
    saver = saver_of(acme)
    put(saver, config_of(thread_id), {"n": 1})
    put(saver, config_of(thread_id, ns="child:1"), {"n": 10})
    put(saver, config_of(thread_id, ns="child:1"), {"n": 11})

    assert values_of(saver, config_of(thread_id)) == {"n": 1}
    assert values_of(saver, config_of(thread_id, ns="child:1")) == {"n": 11}


# --------------------------------------------------------------------------- a thread that is busy


@pytest.mark.parametrize("runs", [1, 2], ids=["running", "running and waiting"])
def test_the_state_of_a_busy_thread_cannot_be_changed(home: Home, saver_of: MakeSaver, acme: Tenant, runs: int) -> None:
    databases, thread_id = Databases(home.app), uuid4()
    PostgresThreads(databases, lambda _: serde_of(None)).create(acme, thread_id, {}, if_exists="raise")
    saver = saver_of(acme, guard_idle=True)
    free = put(saver, config_of(thread_id), {"n": 1})
    for _ in range(runs):
        PostgresRuns(databases, lambda _: serde_of(None)).admit(acme, new_run(thread_id))

    with pytest.raises(ThreadBusy):
        put(saver, free, {"n": 2})
    with pytest.raises(ThreadBusy):
        saver.put_writes(free, [("a", 1)], str(uuid4()))

    found = saver_of(acme).get_tuple(config_of(thread_id))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": 1}
    assert found.pending_writes == []


def test_a_guarded_saver_knows_no_thread_but_those_that_exist(
    home: Home, saver_of: MakeSaver, acme: Tenant, globex: Tenant
) -> None:
    thread_id = uuid4()
    PostgresThreads(Databases(home.app), lambda _: serde_of(None)).create(globex, thread_id, {}, if_exists="raise")

    with pytest.raises(NotFound):
        put(saver_of(acme, guard_idle=True), config_of(thread_id), {"n": 1})


# --------------------------------------------------------------------------- what is stored


def test_a_large_value_that_does_not_change_is_stored_once(home: Home, saver_of: MakeSaver, acme: Tenant) -> None:
    saver, config = saver_of(acme), config_of(uuid4())
    for step in range(5):
        values = {"history": "long " * 1000, "n": step}
        checkpoint = checkpoint_of(values)
        config = saver.put(config, checkpoint, {"source": "loop", "step": step}, {"n": str(step)} if step else values)

    assert home.query("SELECT count(*) FROM farm.checkpoint_blob") == [(1,)]
    assert values_of(saver, config) == {"history": "long " * 1000, "n": 4}


def test_values_that_postgres_text_cannot_hold_are_kept(saver_of: MakeSaver, acme: Tenant) -> None:
    odd = {
        "nul": "a\x00b",
        "nan": [float("inf")],
        "big": 2**80,
        "bytes": b"\x00\xff",
        "tuple": (1, ("a",)),
        "none": None,
    }
    saver, config = saver_of(acme), config_of(uuid4())

    saved = put(saver, config, odd)
    saver.put_writes(saved, [("nul", "a\x00b")], str(uuid4()))

    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == odd
    assert [value for _, _, value in found.pending_writes or []] == ["a\x00b"]


def test_what_cannot_be_kept_names_its_channel_and_saves_nothing(saver_of: MakeSaver, acme: Tenant) -> None:
    saver, config = saver_of(acme), config_of(uuid4())

    with pytest.raises(ValueLost) as refused:
        put(saver, config, {"fine": 1, "session": object()})

    assert refused.value.facts["place"] == "Channel 'session'"
    assert saver.get_tuple(config) is None


def test_what_a_caller_does_to_a_value_reaches_no_other_reader(saver_of: MakeSaver, acme: Tenant) -> None:
    saver, config = saver_of(acme), config_of(uuid4())
    put(saver, config, {"list": [1], "long": ["x" * 300]})

    first = saver.get_tuple(config)
    assert first is not None
    first.checkpoint["channel_values"]["list"].append(2)
    first.checkpoint["channel_values"]["long"].append(2)

    assert values_of(saver, config) == {"list": [1], "long": ["x" * 300]}


def test_a_second_attempt_finds_what_the_first_had_written(saver_of: MakeSaver, acme: Tenant) -> None:
    saver, task = saver_of(acme), str(uuid4())
    saved = put(saver, config_of(uuid4()), {"n": 1})

    for attempt in (1, 2):
        saver.put_writes(saved, [("a", attempt), ("b", attempt)], task)
        saver.put_writes(saved, [("__error__", f"attempt {attempt}")], task)

    found = saver.get_tuple(saved)
    assert found is not None
    assert [write[1:] for write in found.pending_writes or []] == [("__error__", "attempt 2"), ("a", 1), ("b", 1)]


def test_writes_come_back_in_the_order_in_which_a_superstep_applies_them(saver_of: MakeSaver, acme: Tenant) -> None:
    saver = saver_of(acme)
    saved = put(saver, config_of(uuid4()), {"n": 1})
    for path in ("~__pregel_push, 10", "~__pregel_pull, b", "", "~__pregel_pull, a"):
        saver.put_writes(saved, [("a", path)], str(uuid4()), path)

    found = saver.get_tuple(saved)

    assert found is not None
    assert [value for _, _, value in found.pending_writes or []] == sorted(
        ["~__pregel_push, 10", "~__pregel_pull, b", "", "~__pregel_pull, a"]
    )


# --------------------------------------------------------------------------- lists


def test_a_list_goes_through_all_pages_and_stops_at_its_limit(saver_of: MakeSaver, acme: Tenant) -> None:
    saver, config, thread_id = saver_of(acme), None, uuid4()
    for step in range(2 * PAGE + 3):
        config = put(saver, config or config_of(thread_id), {"n": step}, step=step)

    def listed(**how: Any) -> list[int]:
        return [one.checkpoint["channel_values"]["n"] for one in saver.list(config_of(thread_id), **how)]

    everything = list(reversed(range(2 * PAGE + 3)))
    assert listed() == everything
    assert listed(limit=PAGE + 1) == everything[: PAGE + 1]
    assert listed(limit=0) == []
    assert listed(filter={"step": 1}) == [1]
    assert listed(filter={"source": "loop"}, limit=3) == everything[:3]
    assert listed(before=config, limit=2) == everything[1:3]
    assert listed(filter={"step": "1"}) == []


def test_a_list_ends_before_a_checkpoint_that_is_named_by_its_id_alone(saver_of: MakeSaver, acme: Tenant) -> None:
    saver, config, thread_id = saver_of(acme), None, uuid4()
    for step in range(3):
        config = put(saver, config or config_of(thread_id), {"n": step}, step=step)
    assert config is not None

    # So LangGraph asks for a subgraph's past when a run begins at an older checkpoint.
    before: RunnableConfig = {"configurable": {"checkpoint_id": config["configurable"]["checkpoint_id"]}}

    assert [one.metadata["step"] for one in saver.list(config_of(thread_id), before=before)] == [1, 0]


def test_a_copy_of_a_checkpoint_has_its_values_and_not_those_of_the_one_before(
    saver_of: MakeSaver, acme: Tenant
) -> None:
    saver, config = saver_of(acme), config_of(uuid4())
    first = put(saver, config, {"log": ["a"], "same": ["s"]}, version="00000001.aaaaaaaa")
    versions = {"log": "00000002.aaaaaaaa", "same": "00000001.aaaaaaaa"}
    second = checkpoint_of({"log": ["a", "b"], "same": ["s"]}) | {"channel_versions": versions}
    saver.put(first, second, {"source": "loop", "step": 1}, {"log": "00000002.aaaaaaaa"})  # type: ignore[arg-type]

    # As update_state(None, "__copy__") does it: beside the second, below the first, and nothing is new.
    copy = second | {"id": str(uuid6(clock_seq=-1))}
    saver.put(first, copy, {"source": "fork", "step": 2}, {})  # type: ignore[arg-type]

    assert values_of(saver, config) == {"log": ["a", "b"], "same": ["s"]}


async def test_what_is_read_async_is_what_is_read(saver_of: MakeSaver, acme: Tenant) -> None:
    saver, config = saver_of(acme), config_of(uuid4())
    saved = await saver.aput(
        config, (made := checkpoint_of({"n": 1})), {"source": "loop", "step": 0}, made["channel_versions"]
    )
    await saver.aput_writes(saved, [("a", 1)], str(uuid4()))

    found = await saver.aget_tuple(config)

    assert found is not None
    assert told(found) == told(saver.get_tuple(config) or found)
    assert [told(one) async for one in saver.alist(config)] == [told(found)]


# --------------------------------------------------------------------------- graphs


class Deltas(TypedDict):
    items: Annotated[
        list[int], DeltaChannel(lambda have, more: [*have, *(x for one in more for x in one)], snapshot_frequency=4)
    ]
    n: int


def _count(state: Deltas) -> Any:
    return {"items": [state["n"]], "n": state["n"] + 1}


def delta_graph(saver: BaseCheckpointSaver[Any]) -> Any:
    builder = StateGraph(Deltas).add_node("count", _count).add_edge(START, "count")
    builder.add_conditional_edges("count", lambda state: "count" if state["n"] < 11 else END)
    return builder.compile(checkpointer=saver)


def test_a_delta_channel_is_put_together_from_the_line_of_parents(saver_of: MakeSaver, acme: Tenant) -> None:
    ours, stock, config = delta_graph(saver_of(acme)), delta_graph(InMemorySaver()), config_of(uuid4())

    assert ours.invoke({"n": 0}, config) == stock.invoke({"n": 0}, config)

    history = [state.values for state in ours.get_state_history(config)]
    assert history == [state.values for state in stock.get_state_history(config)]
    assert history[0]["items"] == list(range(11))


def test_pruning_keeps_the_ancestors_that_a_delta_channel_needs(home: Home, saver_of: MakeSaver, acme: Tenant) -> None:
    graph, thread_id = delta_graph(saver_of(acme)), uuid4()
    graph.invoke({"n": 0}, config_of(thread_id))
    before = graph.get_state(config_of(thread_id))
    (had,) = home.query("SELECT count(*) FROM farm.checkpoint")

    saver_of(acme).prune([str(thread_id)])

    after = delta_graph(saver_of(acme)).get_state(config_of(thread_id))
    (have,) = home.query("SELECT count(*) FROM farm.checkpoint")
    assert after.values == before.values
    assert 1 < have[0] < had[0]  # type: ignore[operator]  # counts


def test_pruning_removes_the_blobs_that_nobody_shows(home: Home, saver_of: MakeSaver, acme: Tenant) -> None:
    saver, thread_id = saver_of(acme), uuid4()
    config = config_of(thread_id)
    for step in range(3):
        config = put(saver, config, {"long": f"{step} " * 300}, version=f"0000000{step}.aaaaaaaa")

    saver.prune([str(thread_id)])

    assert home.query("SELECT key FROM farm.checkpoint_blob") == [("long:00000002.aaaaaaaa",)]
    assert values_of(saver, config_of(thread_id)) == {"long": "2 " * 300}


def test_deleting_a_runs_checkpoints_takes_the_head_back(saver_of: MakeSaver, acme: Tenant) -> None:
    saver, thread_id = saver_of(acme), uuid4()
    config, runs = config_of(thread_id), [str(uuid4()), str(uuid4())]
    for run_id in runs:
        made = checkpoint_of({"by": run_id})
        config = saver.put(config, made, {"source": "loop", "step": 0, "run_id": run_id}, {})

    saver.delete_for_runs(runs[1:])
    assert values_of(saver_of(acme), config_of(thread_id)) == {"by": runs[0]}

    saver.delete_for_runs(runs)
    assert saver_of(acme).get_tuple(config_of(thread_id)) is None


def test_a_copy_goes_on_by_itself(saver_of: MakeSaver, acme: Tenant) -> None:
    source, copy = config_of(uuid4()), config_of(uuid4())
    graph = delta_graph(saver_of(acme))
    graph.invoke({"n": 8}, source)

    saver_of(acme).copy_thread(source["configurable"]["thread_id"], copy["configurable"]["thread_id"])
    delta_graph(saver_of(acme)).update_state(copy, {"items": [99]})

    assert delta_graph(saver_of(acme)).get_state(copy).values["items"] == [8, 9, 10, 99]
    assert delta_graph(saver_of(acme)).get_state(source).values["items"] == [8, 9, 10]


def ask(state: MessagesState) -> Any:
    return {"messages": [AIMessage(f"you said {interrupt('what?')}", id="2")]}


def asking_graph(saver: BaseCheckpointSaver[Any]) -> Any:
    inner = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
    builder = StateGraph(MessagesState).add_node("inner", inner).add_node("end", lambda _: {"messages": []})
    builder.add_conditional_edges(START, lambda state: [Send("inner", state)]).add_edge("inner", "end")
    return builder.compile(checkpointer=saver)


def test_a_graph_with_an_interrupt_in_a_subgraph_goes_as_with_langgraphs_own_saver(
    saver_of: MakeSaver, acme: Tenant
) -> None:
    def tell(saver: Callable[[], BaseCheckpointSaver[Any]]) -> Any:
        """A new saver for each step, as each worker has its own."""
        config, told = config_of(uuid4()), []
        told.append(
            asking_graph(saver()).invoke({"messages": [HumanMessage("hi", id="1")]}, config)["__interrupt__"][0].value
        )
        told.append(asking_graph(saver()).get_state(config, subgraphs=True).tasks[0].state.next)
        told.append(asking_graph(saver()).invoke(Command(resume="hello"), config)["messages"])
        asking_graph(saver()).update_state(config, {"messages": [HumanMessage("more", id="3")]}, "end")
        states = list(asking_graph(saver()).get_state_history(config))
        told.append([(state.values, state.next, state.metadata["step"]) for state in states])
        return told

    stock = InMemorySaver()

    assert tell(lambda: saver_of(acme)) == tell(lambda: stock)
