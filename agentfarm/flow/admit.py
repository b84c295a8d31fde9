"""Stations 1 and 2: what a client asked for becomes a durable run and its first message.

`build_run` reads the request against the graph and refuses what cannot be done, before anything is written. `admit_run`
makes it durable in one transaction; only then is the message published and the client answered, so that an acknowledged
run can be lost by nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from langgraph.types import Command, Send

from agentfarm import ids
from agentfarm.engine import run_events
from agentfarm.engine.continuation import Manifest, decide_continuation, goes_on, pending_nodes, stored_channels
from agentfarm.engine.graphs import LoadedGraph
from agentfarm.engine.segment import inline_reason
from agentfarm.engine.steps import RunSpec
from agentfarm.errors import BadRequest, GraphChanged, GraphLoadFailed, GraphNotFound, InvalidInput, NotFound
from agentfarm.flow.dispatch import dispatch
from agentfarm.flow.farm import Farm
from agentfarm.flow.graph_use import clients_own, looking, use_graph
from agentfarm.flow.settle import announce
from agentfarm.records import Admitted, NewRun, Once, OtherBuild, RunRequest, RunRow
from agentfarm.run_options import RunOptions, decide_options
from agentfarm.tenancy import Tenant

#: How the Agent Server's stream modes are made from LangGraph's own; "events" is made by the engine.
STREAM_MODES: Mapping[str, str] = {
    "values": "values",
    "updates": "updates",
    "messages": "messages",
    "messages-tuple": "messages",
    "custom": "custom",
    "tasks": "tasks",
    "checkpoints": "checkpoints",
    "debug": "debug",
}

#: All that a client may ask for.
ALL_MODES = (*STREAM_MODES, run_events.MODE)


def admit_run(farm: Farm, tenant: Tenant, new: NewRun) -> RunRow:
    """Make the run durable, then publish its first message.

    returns the run of the same request where that was admitted before; nothing is published then
    raises  NotFound (no such thread, or no such checkpoint in it), ThreadBusy (strategy reject, or too many wait),
            GraphChanged (this build of the graph cannot go on with what another one left in the thread), NameReused,
            Conflict (the run of the same request is deleted), StoreUnavailable
    """
    _check_beginning(farm, tenant, new)
    admitted = farm.runs.admit(tenant, new)
    while isinstance(admitted, OtherBuild):  # once; again only if another run of another build came in between
        _check_build(farm, tenant, new, admitted)
        admitted = farm.runs.admit(tenant, replace(new, goes_on_from=admitted.fingerprint))
    return _publish(farm, admitted)


def _check_beginning(farm: Farm, tenant: Tenant, new: NewRun) -> None:
    """LangGraph would begin with an empty state where the checkpoint is not there, as the child of one that is none.

    raises  NotFound (thread or checkpoint), InvalidId
    """
    began = _beginning(new)
    if began is not None and farm.threads.outline(tenant, new.thread_id, began) is None:
        farm.threads.get(tenant, new.thread_id)
        raise NotFound(what="Checkpoint")


def _beginning(new: NewRun) -> str | None:
    """The checkpoint of the graph itself that the run is to begin at; None: the thread's head. One of a subgraph is
    named with a map of those around it."""
    place: Mapping[str, Any] = new.spec.config["configurable"]
    began: str | None = (place.get("checkpoint_map") or {}).get("") or place.get("checkpoint_id")
    return began


def _check_build(farm: Farm, tenant: Tenant, new: NewRun, other: OtherBuild) -> None:
    """Raises GraphChanged where the thread cannot go on with this run's graph."""
    checkpoint = farm.threads.outline(tenant, new.thread_id, _beginning(new))
    if checkpoint is None or other.manifest is None or new.manifest is None:
        return  # nothing is stored, or nobody knows under what: the worker that enters the checkpoint looks again
    pending = pending_nodes(other.manifest, checkpoint) if goes_on(new.spec.input) else frozenset()
    stored = stored_channels(other.manifest, checkpoint)
    if why := decide_continuation(other.manifest, new.manifest, pending=pending, stored=stored):
        raise GraphChanged(graph_id=new.graph_id, why=why)


def retry_run(farm: Farm, tenant: Tenant, thread_id: UUID, run_id: UUID) -> RunRow:
    """Go on with a failed run from its last checkpoint, as a new run: finished nodes are not executed again."""
    return _publish(farm, farm.runs.retry(tenant, thread_id, run_id))


def _publish(farm: Farm, admitted: Admitted) -> RunRow:
    dispatch(farm, admitted.ready)
    announce(farm, admitted.ended)
    return admitted.run


def find_graph_id(farm: Farm, assistant_id: str) -> str:
    """The graph behind an assistant's id or a graph's name. Raises GraphNotFound, GraphLoadFailed."""
    served = farm.graphs.ids()
    for graph_id in (*served, *farm.graphs.problems):
        if assistant_id == graph_id or assistant_id.lower() == str(ids.assistant_id(graph_id)):
            if graph_id in farm.graphs.problems:
                raise GraphLoadFailed(farm.graphs.problems[graph_id])
            return graph_id
    # What was asked for is not repeated: it may be anything. What is served is no secret.
    raise GraphNotFound("Assistant not found. Send the id of an assistant, or a graph's name: " + ", ".join(served))


def build_run(farm: Farm, tenant: Tenant, request: RunRequest, *, thread_id: UUID, once: Once | None = None) -> NewRun:
    """The run that a request describes, checked against its graph. Touches nothing.

    once    how the client named the request, if it may send it again
    raises  GraphNotFound, GraphLoadFailed, InvalidInput, BadRequest
    """
    graph_id = find_graph_id(farm, request.assistant_id)
    if request.stateless and request.command is not None and request.command.get("resume") is not None:
        raise BadRequest(why="a run without a thread has nothing to resume; send it to /threads/{thread_id}/runs")
    run_id = ids.new_id()
    config = _config(request, run_id=run_id, thread_id=thread_id, graph_id=graph_id, tenant=tenant)

    # Nothing is executed here, so that a factory need not connect to anything for it.
    access = partial(looking, "assistants.read", tenant.id, graph_id, config, store=farm.stores.of(tenant))

    def look(loaded: LoadedGraph) -> tuple[dict[str, Any], str, Manifest]:
        return _stream_kwargs(request, loaded), loaded.fingerprint, loaded.manifest

    kwargs, fingerprint, manifest = use_graph(farm, graph_id, access, look)
    spec = RunSpec(
        run_id=str(run_id),
        thread_id=str(thread_id),
        graph_id=graph_id,
        input=_input(request),
        config=config,
        kwargs=kwargs,
        inline=inline_reason(kwargs),
        retry_by_message=farm.retry_message_seconds,
        modes=_requested_modes(request),
        fingerprint=fingerprint,
        options=_options(farm, tenant, graph_id, request),
    )
    return NewRun(
        run_id=run_id,
        thread_id=thread_id,
        assistant_id=ids.assistant_id(graph_id),
        graph_id=graph_id,
        spec=spec,
        strategy=request.multitask_strategy,
        metadata=dict(request.metadata),
        create_thread=request.stateless or request.if_not_exists == "create",
        forget_thread=request.stateless and request.on_completion == "delete",
        is_resume=request.command is not None,
        fingerprint=fingerprint,
        manifest=manifest,
        once=once,
    )


def _options(farm: Farm, tenant: Tenant, graph_id: str, request: RunRequest) -> RunOptions:
    choices = [request.choices, farm.graphs.choices(graph_id), tenant.choices]
    return decide_options(choices, most=farm.run_ahead, durability=request.durability)


def _requested_modes(request: RunRequest) -> tuple[str, ...]:
    """The Agent Server's modes whose events are kept. A run that nobody streams keeps none but its end."""
    modes = tuple(dict.fromkeys(request.stream_mode)) or (("values",) if request.streamed else ())
    for mode in modes:
        if mode not in ALL_MODES:
            raise InvalidInput(where="stream_mode", why=f"{mode!r:.40} is none; there are {', '.join(ALL_MODES)}")
    return modes


def _stream_kwargs(request: RunRequest, loaded: LoadedGraph) -> dict[str, Any]:
    requested = _requested_modes(request)
    modes = {STREAM_MODES[mode] for mode in requested if mode != run_events.MODE}
    if requested and not modes & {"values", "updates"}:
        modes.add("updates")  # a question to a human comes with these; EventRenderer leaves the rest of them out
    kwargs: dict[str, Any] = {
        "stream_mode": sorted(modes),
        "subgraphs": request.stream_subgraphs,
        "durability": request.durability or "async",
    }
    for name in ("interrupt_before", "interrupt_after"):
        if (nodes := getattr(request, name)) is not None:
            kwargs[name] = _breakpoints(name, nodes, loaded)
    context = request.context
    if context is None:
        context = _context_of(loaded.graph.context_schema, clients_own(request.config.get("configurable") or {}))
    if context is not None:
        kwargs["context"] = dict(context)
    return kwargs


def _context_of(schema: type | None, configurable: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The context of a run whose client sent `config.configurable` alone, as clients did before there was a context.

    A dataclass takes no more than its fields; what else is there is for a factory or a node that reads the config.
    None, as in LangGraph, where it would lack one.
    """
    if schema is None:
        return None
    if not is_dataclass(schema):
        return configurable
    known = {field.name: field for field in fields(schema) if field.init}
    lacking = [f for name, f in known.items() if name not in configurable and f.default is f.default_factory is MISSING]
    return None if lacking else {name: value for name, value in configurable.items() if name in known}


def _breakpoints(name: str, nodes: str | Sequence[str], loaded: LoadedGraph) -> str | list[str]:
    if nodes == "*":
        return "*"
    unknown = [node for node in nodes if node not in loaded.graph.nodes]
    if unknown:
        raise InvalidInput(where=name, why=f"names a node that the graph lacks; it has {loaded.nodes_told()}")
    return list(nodes)


def _config(request: RunRequest, *, run_id: UUID, thread_id: UUID, graph_id: str, tenant: Tenant) -> dict[str, Any]:
    given = dict(request.config)
    configurable = dict(given.get("configurable") or {})
    if configurable and request.context:
        raise BadRequest(
            why="config.configurable and context were both given, and a run has one of them; send context alone: "
            "nodes and factories find its values in config.configurable, too"
        )
    checkpoint = {"checkpoint_id": request.checkpoint_id, **(request.checkpoint or {})}
    kept = {**clients_own(configurable), **clients_own(request.context or {})}
    kept.update(
        thread_id=str(thread_id),
        run_id=str(run_id),
        graph_id=graph_id,
        assistant_id=str(ids.assistant_id(graph_id)),
        langgraph_auth_user_id=str(tenant.id),
    )
    if checkpoint_id := checkpoint.get("checkpoint_id"):
        kept["checkpoint_id"] = str(ids.parse_uuid(checkpoint_id, what="checkpoint_id"))
    if checkpoint_map := checkpoint.get("checkpoint_map"):
        kept["checkpoint_map"] = checkpoint_map
    # The run's id is in the metadata of every checkpoint: LangGraph tells by it a retried attempt from a new input.
    metadata = {
        **(given.get("metadata") or {}),
        **request.metadata,
        "run_id": str(run_id),
        "graph_id": graph_id,
        "assistant_id": str(ids.assistant_id(graph_id)),
    }
    return {**given, "configurable": kept, "metadata": metadata}


def _input(request: RunRequest) -> Any:
    if request.command is None:
        return request.input
    if request.input is not None:
        raise BadRequest(why="input and command were both given; a command brings its own update")
    return parse_command(request.command)


def parse_command(command: Mapping[str, Any]) -> Command[Any]:
    """{update, resume, goto} as LangGraph's Command; a Send is {node, input}. Raises InvalidInput."""
    known = {"update", "resume", "goto"}
    if unknown := set(command) - known:
        raise InvalidInput(where="command", why=f"has unknown keys ({len(unknown)}); it takes update, resume and goto")
    given = {k: v for k, v in command.items() if v is not None}
    if not given:
        raise InvalidInput(where="command", why="is empty; give update, resume or goto")
    if "goto" in given:
        given["goto"] = _goto(given["goto"])
    if isinstance(update := given.get("update"), list) and all(map(_is_pair, update)):
        given["update"] = [tuple(pair) for pair in update]
    return Command(**given)


def _is_pair(part: Any) -> bool:
    """A channel and its value. A list of anything else is what is written to the root, as LangGraph has it."""
    return isinstance(part, list) and len(part) == 2 and isinstance(part[0], str)


def _goto(goto: Any) -> Any:
    if isinstance(goto, list):
        return [_goto(one) for one in goto]
    if isinstance(goto, str):
        return goto
    if isinstance(goto, dict) and set(goto) == {"node", "input"} and isinstance(goto["node"], str):
        return Send(goto["node"], goto["input"])
    raise InvalidInput(where="command.goto", why="takes a node's name, {node, input}, or a list of these")
