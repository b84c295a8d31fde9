"""What was asked for, as bytes and back: a run's RunSpec and an execution's NodeCall.

Fields that this build does not know are left out when read, so that two builds can share a farm while one replaces the
other.
"""

from dataclasses import fields
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentfarm.engine.steps import NodeCall, RunSpec
from agentfarm.persistence.bodies import dump_value, load_value
from agentfarm.persistence.serde import CALL, RUN
from agentfarm.run_options import RunOptions

_RUN_FIELDS = tuple(field.name for field in fields(RunSpec))
_OPTIONS = tuple(field.name for field in fields(RunOptions))


def dump_spec(spec: RunSpec, serde: SerializerProtocol) -> bytes:
    """farm.run.spec. Raises ValueLost for an input that would not come back."""
    told = {name: getattr(spec, name) for name in _RUN_FIELDS}
    return dump_value(serde, {**told, "options": spec.options.to_dict()}, channel=RUN)


def load_spec(data: bytes, serde: SerializerProtocol) -> RunSpec:
    given: dict[str, Any] = load_value(serde, data, channel=RUN)
    known = {name: given[name] for name in _RUN_FIELDS if name in given}
    options: dict[str, Any] = known.get("options", {})
    known["options"] = RunOptions(**{name: options[name] for name in _OPTIONS if name in options})
    return RunSpec(**known)


def dump_call(call: NodeCall, serde: SerializerProtocol) -> bytes:
    """farm.node_execution.spec."""
    return dump_value(serde, call.to_dict(), channel=CALL)


def load_call(data: bytes, serde: SerializerProtocol) -> NodeCall | None:
    """None for a start, whose spec is empty."""
    return NodeCall.from_dict(load_value(serde, data, channel=CALL)) if data else None
