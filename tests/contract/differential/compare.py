"""Where two records of a scenario differ.

`normalised` says all that is not compared; whatever it leaves is.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel

from agentfarm.engine.jsonable import to_json
from tests.contract.differential.scenario import Record, StepRecord

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00|Z)|(?<=elapsed: )\d+\.\d+s")
_VERSION = re.compile(r"\d{8}(?:\d{24})?\.[0-9a-f.+-]+")

#: As the corpus has its nodes say it.
_ATTEMPT = re.compile(r"attempt \d+")

#: How LangGraph marks an update that it did not execute the node for.
_CACHED = re.compile(r'"__metadata__": \{"cached": true\}(, )?')

#: Events of what nodes are given and write.
_OF_NODES = frozenset({"tasks", "updates", "debug"})

_TOOL_MESSAGE = "langchain_core.messages.tool.ToolMessage"

#: What stands between two supersteps of a stream.
_BETWEEN = frozenset({"values", "checkpoints"})


def differences(stock: Record, farm: Record, *, parallel: bool = False) -> list[str]:
    """Sentences that name a place and both sides; none: equal.

    parallel  events of nodes of one superstep may come in any order, and those of subgraphs between each other;
              each namespace for itself keeps the order of its supersteps
    """
    return list(_differ("", normalised(stock, parallel=parallel), normalised(farm, parallel=parallel)))


def differences_after_kills(stock: Record, farm: Record, *, parallel: bool = False) -> list[str]:
    """The same where workers died while they executed nodes of the thread.

    All but the events is as it would be. Of the events nothing is missing: stock's are all there, and in their order
    where no nodes run at the same time. What is there beside them is what a lost attempt had told before it died, so
    each is one that stock tells, too. Where an attempt goes on inside of a subgraph, LangGraph tells what was saved
    there again, as cached, and the values with which it goes on: those of a checkpoint that stock has, too. What the
    lost attempt saved there and died before it told is not told again: one event each, of a subgraph. Ids in events are
    not compared: each attempt gives messages others; nor is the number of an attempt that a node tells, since a lost
    one counts.
    """
    one, two = (_without_attempts(normalised(side, parallel=parallel)) for side in (stock, farm))
    events = [[step.pop("events") for step in side["steps"]] for side in (one, two)]
    told = list(_differ("", one, two))
    for index, (of_stock, of_farm) in enumerate(zip(*events, strict=True)):
        left, right = _flat(of_stock), _flat(of_farm)
        where = f"steps[{index}].events"
        untold = list((Counter(left) - Counter(right)).elements()) if parallel else _out_of_order(left, right)
        if len(untold) > farm.lost or not all(map(_is_inside, untold)):
            told += [f"{where}: missing in the farm, or late: {event}" for event in untold]
        beside = [event for event in right if event not in left and not _goes_on_inside(event, one["stored"])]
        told += [f"{where}: never told by stock: {event}" for event in beside]
    return told


def _goes_on_inside(event: str, stored: Mapping[str, Any]) -> bool:
    """Whether it tells the values of a checkpoint of its own subgraph; a channel that is empty is not kept."""
    told = json.loads(event)
    if not (isinstance(told, list) and len(told) == 2 and isinstance(told[1], dict)):
        return False
    kind, _, ns = str(told[0]).partition("|")
    kept = [one["checkpoint"]["channel_values"] for at, some in stored.items() if _unnumbered(at) == ns for one in some]
    return (
        kind == "values"
        and bool(ns)
        and any(
            all(values.get(key) == value if key in values else not value for key, value in told[1].items())
            for values in kept
        )
    )


def _unnumbered(text: str) -> str:
    return re.sub(r"<\d+>", "<id>", text)


def _without_attempts(record: Any) -> Any:
    return json.loads(_ATTEMPT.sub("an attempt", json.dumps(record)))


def _flat(events: Any) -> list[str]:
    """Each as text, ids without the number that tells one from the other, and whether it came from a saved result."""
    every = [one for ns in events for one in events[ns]] if isinstance(events, dict) else events
    return [_CACHED.sub("", _unnumbered(json.dumps(one, sort_keys=True))) for one in every]


def _out_of_order(wanted: list[str], among: list[str]) -> list[str]:
    """Those that are not found behind the one before them that is."""
    at, missing = 0, []
    for one in wanted:
        try:
            at = among.index(one, at) + 1
        except ValueError:
            missing.append(one)
    return missing


def _is_inside(event: str) -> bool:
    """Whether it is of a subgraph."""
    told = json.loads(event)
    return isinstance(told, list) and "|" in str(told[0])


def normalised(record: Record, *, parallel: bool = False) -> dict[str, Any]:
    """The record without what can never be equal in two executions:

    ids        each becomes a name: those that the drivers know by their role, the others by where they are first met
               (history, then what is stored, then states, then events), the same name wherever the id is met again
    times      a timestamp becomes <time>, and how long a node ran before its timeout
    versions   of channels: their number, without the random part behind it
    edges      of a node, which are a set: the order in which it writes along them
    order      between the events of different nodes that run at the same time, where the scenario says that there are
               such, and between the pending writes of different nodes; each node's own keep their order
    tool ids   of tool messages, in what a node was given and what it wrote (tasks, updates, results, pending writes):
               reducers give a missing id in place, so stock's objects have it or not by when one looks at them. Values
               and messages are compared with them, and so is everything else that a tool message says
    metadata   of stored checkpoints: as JSON, which is how stock's savers for databases keep it

    Types, places, errors, writes and numbers of events are compared as they are.
    """
    names = _Names(record.ids)
    history = names.told([_without_tool_ids_in_tasks(state) for state in record.history])
    stored = _stored(record.stored, names)
    steps = []
    for step in record.steps:
        state = _without_tool_ids_in_tasks(step.state)
        told = names.told([step.answer, step.run_status, step.thread_status, state])
        steps.append({**dict(zip(("answer", "run_status", "thread_status", "state"), told, strict=True))})
    for told, step in zip(steps, record.steps, strict=True):
        told["events"] = events_of(step, names, parallel=parallel)
    return {"steps": steps, "history": history, "stored": stored}


def _without_tool_ids(value: Any) -> Any:
    """JSON, or what `typed` makes of messages."""
    if isinstance(value, list):
        return [_without_tool_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    value = {key: _without_tool_ids(one) for key, one in value.items()}
    if value.get("type") == "tool" and "tool_call_id" in value:
        return {key: one for key, one in value.items() if key != "id"}
    if value.get("type") == _TOOL_MESSAGE:
        return {**value, "set": [key for key in value["set"] if key != "id"]}
    return value


def _without_tool_ids_in_tasks(state: Any) -> Any:
    return {**state, "tasks": [_without_tool_ids(task) for task in state["tasks"]]}


class _Names:
    def __init__(self, known: Mapping[str, str]) -> None:
        self._names = {id_: f"<{name}>" for id_, name in known.items()}

    def told(self, value: Any) -> Any:
        """With names for ids, and no times."""
        return json.loads(_ID.sub(lambda found: self._name(found[0]), _blank(value)))

    def known(self, value: Any) -> str:
        """As text, with names for the ids that have one: to sort by."""
        return _ID.sub(lambda found: self._names.get(found[0], "?"), _blank(value))

    def _name(self, id_: str) -> str:
        return self._names.setdefault(id_, f"<{len(self._names) + 1}>")


def _blank(value: Any) -> str:
    return _TIME.sub("<time>", json.dumps(value, sort_keys=True))


# --------------------------------------------------------------------------- what is stored


def _stored(stored: Mapping[str, list[Any]], names: _Names) -> dict[str, Any]:
    found: dict[str, Any] = {}
    # A namespace is named by the node execution around it, which is met in the namespace above.
    for depth in sorted({ns.count("|") + bool(ns) for ns in stored}):
        level = [ns for ns in stored if ns.count("|") + bool(ns) == depth]
        for ns in sorted(level, key=names.known):
            found[names.told(ns)] = [_checkpoint(one, names) for one in stored[ns]]
    return found


def _checkpoint(one: Any, names: _Names) -> Any:
    checkpoint = dict(one.checkpoint)
    checkpoint["channel_versions"] = {k: _number(v) for k, v in checkpoint["channel_versions"].items()}
    checkpoint["versions_seen"] = {
        node: {k: _number(v) for k, v in seen.items()} for node, seen in checkpoint["versions_seen"].items()
    }
    checkpoint["channel_values"] = typed(checkpoint["channel_values"])
    by_execution: dict[str, list[Any]] = {}
    for execution_id, channel, value in one.pending_writes or ():
        by_execution.setdefault(execution_id, []).append([channel, _without_tool_ids(typed(value))])
    by_execution = {execution_id: _edges_sorted(writes) for execution_id, writes in by_execution.items()}
    told = names.told([checkpoint, json.loads(to_json(one.metadata)), one.config, one.parent_config])
    writes = [names.told(pair) for pair in sorted(by_execution.items(), key=names.known)]
    return dict(zip(("checkpoint", "metadata", "config", "parent"), told, strict=True)) | {"writes": writes}


def _edges_sorted(writes: list[Any]) -> list[Any]:
    """A graph's edges are a set: the writes along those of a node stay together, their order is that of hashes."""
    edges = sorted((write for write in writes if write[0].startswith("branch:to:")), key=json.dumps)
    if not edges:
        return writes
    first = next(index for index, write in enumerate(writes) if write in edges)
    others = [write for write in writes if write not in edges]
    return [*others[:first], *edges, *others[first:]]


def _number(version: Any) -> Any:
    return int(version.split(".")[0]) if isinstance(version, str) and _VERSION.fullmatch(version) else version


def typed(value: Any) -> Any:
    """A Python object as JSON that says its type, where JSON has none for it."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is dict:
        return {str(k) if isinstance(k, str) else f"{type(k).__name__} {k}": typed(v) for k, v in value.items()}
    if type(value) is list:
        return [typed(one) for one in value]
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, BaseModel):
        inner = {k: getattr(value, k) for k in type(value).model_fields}
        return {
            "type": name,
            "fields": typed({**inner, **(value.model_extra or {})}),
            "set": sorted(value.model_fields_set),
        }
    if is_dataclass(value):
        return {"type": name, "fields": {f.name: typed(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, set | frozenset):
        return {"type": name, "items": sorted((typed(one) for one in value), key=json.dumps)}
    if isinstance(value, Mapping):
        return {"type": name, "items": [[typed(k), typed(v)] for k, v in value.items()]}
    if isinstance(value, tuple | list) or hasattr(value, "__iter__"):
        return {"type": name, "items": [typed(one) for one in value]}
    return {"type": name, "repr": repr(value)}


# --------------------------------------------------------------------------- events


def events_of(step: StepRecord, names: _Names, *, parallel: bool) -> Any:
    """In their order; where nodes run at the same time, by namespace and superstep, each superstep's sorted."""
    events = [
        [name, _without_tool_ids(payload) if name.partition("|")[0] in _OF_NODES else payload]
        for name, payload in step.events
    ]
    if not parallel:
        return names.told(events)
    by_namespace: dict[str, list[list[Any]]] = {}
    for name, payload in events:
        by_namespace.setdefault(name.partition("|")[2], []).append([name, payload])
    told: dict[str, Any] = {}
    for ns in sorted(by_namespace, key=lambda ns: (ns.count("|"), bool(ns), names.known(ns))):
        ordered = [one for part in _supersteps(by_namespace[ns]) for one in sorted(part, key=_owner(names))]
        told[names.told(ns)] = [names.told(one) for one in ordered]
    return told


def _supersteps(events: Iterable[list[Any]]) -> Iterator[list[list[Any]]]:
    part: list[list[Any]] = []
    for name, payload in events:
        if _is_between(name, payload):
            yield part
            yield [[name, payload]]
            part = []
        else:
            part.append([name, payload])
    yield part


def _owner(names: _Names) -> Callable[[list[Any]], tuple[str, str]]:
    """Sorts the events of a superstep by the node execution that they are of, as far as they tell; each one's own stay
    in their order."""

    def owner(event: list[Any]) -> tuple[str, str]:
        name, payload = event
        mode = name.partition("|")[0]
        told: Any = payload
        if mode == "tasks":
            told = payload["id"]
        elif mode == "debug" and payload["type"] != "checkpoint":
            told = payload["payload"]["id"]
        elif mode == "messages":
            told = payload[1]["langgraph_checkpoint_ns"]
        elif mode == "custom" and isinstance(payload, dict) and "from" in payload:
            told = payload["from"]
        elif mode.startswith("messages/"):
            told = ""  # they name no node; all of a superstep stay in their order
        return mode, names.known(told)

    return owner


def _is_between(name: str, payload: Any) -> bool:
    base = name.partition("|")[0]
    if base == "values" and isinstance(payload, dict) and "__interrupt__" in payload:
        return False  # told by the node that asks, at once
    return base in _BETWEEN or (base == "debug" and payload["type"] == "checkpoint")


# --------------------------------------------------------------------------- telling


def _differ(where: str, stock: Any, farm: Any) -> Iterator[str]:
    if isinstance(stock, dict) and isinstance(farm, dict):
        for key in [*stock, *(key for key in farm if key not in stock)]:
            yield from _differ(f"{where}.{key}", stock.get(key, _ABSENT), farm.get(key, _ABSENT))
    elif isinstance(stock, list) and isinstance(farm, list):
        for index in range(max(len(stock), len(farm))):
            pair = (part[index] if index < len(part) else _ABSENT for part in (stock, farm))
            yield from _differ(f"{where}[{index}]", *pair)
    elif stock != farm or type(stock) is not type(farm):
        yield f"{where.removeprefix('.')}\n    stock: {_short(stock)}\n    farm:  {_short(farm)}"


class _Absent:
    def __repr__(self) -> str:
        return "(nothing)"


_ABSENT = _Absent()


def _short(value: Any) -> str:
    text = repr(value) if value is _ABSENT else json.dumps(value)
    return text if len(text) < 400 else f"{text[:400]} …"
