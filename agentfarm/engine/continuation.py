"""Whether a thread that was begun under one build of a graph can go on under another.

A build is known by its manifest: plain JSON of names and kinds, no code. Refused is only what LangGraph surely cannot
go on with: a node that is to be executed next and is gone, or a stored value that its channel cannot take any more.
Nodes that are added, edges that change, channels that come or go: LangGraph goes on, and so does the thread.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, NotRequired, TypedDict, get_args, get_origin

from langgraph.channels.base import BaseChannel
from langgraph.checkpoint.base import Checkpoint
from langgraph.graph import START
from langgraph.pregel import Pregel
from langgraph.types import Command, Send

from agentfarm.engine import _langgraph as lg
from agentfarm.errors import GraphChanged


class ChannelKind(TypedDict):
    """kind     its class
    type     of the value, where it is one of Python's own
    reducer  what combines values, by its name
    names    what a barrier waits for
    """

    kind: str
    type: NotRequired[str]
    reducer: NotRequired[str]
    names: NotRequired[list[str]]


class Manifest(TypedDict):
    """{node: the channels that trigger it}, {channel: its kind}."""

    nodes: dict[str, list[str]]
    channels: dict[str, ChannelKind]


def manifest_of(graph: Pregel[Any, Any, Any, Any]) -> Manifest:
    """The same in every process that has this graph."""
    return {
        "nodes": {name: sorted(node.triggers) for name, node in sorted(graph.nodes.items())},
        "channels": {
            name: _kind(channel) for name, channel in sorted(graph.channels.items()) if isinstance(channel, BaseChannel)
        },
    }


def decide_continuation(
    old: Manifest, new: Manifest, *, pending: Collection[str], stored: Collection[str]
) -> str | None:
    """Why a thread cannot go on, as the end of a sentence; None where it can.

    pending  nodes that the thread is to execute next: `pending_nodes`
    stored   channels of which the thread has a value: `stored_channels`
    """
    for node in sorted(pending):
        if node not in new["nodes"]:
            return f"node {node!r}, which is next, is gone"
    for channel in sorted(stored):
        was, now = old["channels"].get(channel), new["channels"].get(channel)
        if was is not None and now is not None and was != now and (why := _conflict(was, now)):
            return f"channel {channel!r} {why}"
    return None


# --------------------------------------------------------------------------- what a checkpoint says


def pending_nodes(manifest: Manifest, checkpoint: Checkpoint) -> frozenset[str]:
    """The nodes that LangGraph would execute from this checkpoint, under the build that made it.

    source  langgraph.pregel._algo: prepare_next_tasks, _triggers; langgraph 1.2
    """
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    channels = manifest["channels"]
    ready = {name for name in versions if _is_available(channels.get(name), values.get(name, _NOTHING))}
    nodes = set()
    for node, triggers in manifest["nodes"].items():
        seen = checkpoint["versions_seen"].get(node, {})
        if any(name in ready and (name not in seen or versions[name] > seen[name]) for name in triggers):  # type: ignore[operator]  # of one kind within a thread
            nodes.add(node)
    nodes |= {packet.node for packet in values.get(lg.TASKS) or () if isinstance(packet, Send)}
    return frozenset(nodes - {START})


def stored_channels(manifest: Manifest, checkpoint: Checkpoint) -> frozenset[str]:
    """The channels of which this checkpoint has a value. That of a delta channel is not in it: its writes are."""
    deltas = {name for name, channel in manifest["channels"].items() if channel["kind"] == "DeltaChannel"}
    return frozenset(checkpoint["channel_values"]) | (deltas & checkpoint["channel_versions"].keys())


def goes_on(input: Any) -> bool:
    """Whether a run with this input goes on with the nodes that are pending. Another input puts them aside."""
    return input is None or isinstance(input, Command)


def is_resumed(loop: Any) -> bool:
    """Whether LangGraph's loop is about to go on with its checkpoint's nodes; a subgraph's caller says so."""
    return bool(loop.config[lg.CONF].get(lg.CONFIG_KEY_RESUMING, goes_on(loop.input)))


def next_nodes(checkpoint: Checkpoint) -> list[str]:
    """Told without the other build's manifest, by what a StateGraph calls its triggers and by Sends, so that it holds
    inside of subgraphs, too."""
    values = checkpoint["channel_values"]
    by_edge = [name.removeprefix(_TRIGGER) for name in values if name.startswith(_TRIGGER)]
    return by_edge + [packet.node for packet in values.get(lg.TASKS) or () if isinstance(packet, Send)]


def check_nodes(graph_id: str, wanted: Iterable[str], nodes: Collection[str]) -> None:
    """Refuse to enter a checkpoint again whose next node the graph has lost: LangGraph would pass over it in silence,
    and take the thread for done.

    raises  GraphChanged
    """
    for node in wanted:
        if node not in nodes:
            raise GraphChanged(graph_id=graph_id, why=f"node {node!r}, which is next, is gone")


_NOTHING = object()

#: source: langgraph.graph.state._CHANNEL_BRANCH_TO, langgraph 1.2
_TRIGGER = "branch:to:"


def _is_available(channel: ChannelKind | None, value: Any) -> bool:
    if channel is None or value is _NOTHING:
        return False
    if channel["kind"].endswith("AfterFinish"):
        value, is_finished = value
        if not is_finished:
            return False
    return "names" not in channel or sorted(map(str, value)) == channel["names"]


# --------------------------------------------------------------------------- what a channel can take


#: Channels that keep a value in a form of their own. The others keep the value itself.
_FORMS: Mapping[str, str] = {
    "Topic": "a list of values",
    "NamedBarrierValue": "the names it has seen",
    "NamedBarrierValueAfterFinish": "the names it has seen and whether it is finished",
    "LastValueAfterFinish": "a value and whether it is finished",
}

_PLAIN = frozenset({"LastValue", "AnyValue", "EphemeralValue", "BinaryOperatorAggregate"})

#: Of one family a value can be added to another's.
_NUMBERS = frozenset({"bool", "int", "float", "complex"})

_KNOWN_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)


def _conflict(was: ChannelKind, now: ChannelKind) -> str | None:
    """Why a value of the one cannot be taken by the other; None where it can, or nobody can tell (a custom class)."""
    told = f"was a {was['kind']} and is a {now['kind']} now"
    if "UntrackedValue" in (was["kind"], now["kind"]):
        return None
    if was["kind"] == "DeltaChannel" != now["kind"]:
        return f"{told}, which cannot read the writes that its value is made of"
    old_form, new_form = _form(was), _form(now)
    if old_form and new_form and old_form != new_form:
        return f"{told}: stored is {old_form}, and it takes {new_form}"
    if now.get("reducer") and was.get("type") and now.get("type") and not _same_family(was["type"], now["type"]):
        return f"held a {was['type']}, and its reducer {now['reducer']} combines values of type {now['type']} now"
    return None


def _form(channel: ChannelKind) -> str | None:
    if channel["kind"] in _PLAIN or channel["kind"] == "DeltaChannel":
        return "a value"
    return _FORMS.get(channel["kind"])


def _same_family(one: str, other: str) -> bool:
    return one == other or {one, other} <= _NUMBERS


def _kind(channel: Any) -> ChannelKind:
    told: ChannelKind = {"kind": type(channel).__name__}
    if name := _type_name(getattr(channel, "typ", None)):
        told["type"] = name
    reducer = getattr(channel, "operator", None) or getattr(channel, "reducer", None)
    if reducer is not None:
        told["reducer"] = _name_of(reducer)
    if (names := getattr(channel, "names", None)) is not None:
        told["names"] = sorted(map(str, names))
    return told


def _type_name(annotation: Any) -> str | None:
    """Of one of Python's own types, without what it holds. Unions, Any and classes of one's own tell nothing here."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type):
        return origin.__name__ if origin in _KNOWN_TYPES else _ABSTRACT.get(origin.__name__)
    return None


#: What LangGraph's reducers make of collections.abc.
_ABSTRACT: Mapping[str, str] = {
    "Sequence": "list",
    "MutableSequence": "list",
    "Set": "set",
    "MutableSet": "set",
    "Mapping": "dict",
    "MutableMapping": "dict",
}


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '') or ''}.{name}".lstrip(".")
