"""A checkpoint as bytes: each sibling of a wide superstep reads its own Send alone."""

from typing import Any

import pytest
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.serde.types import TASKS
from langgraph.types import Send

from agentfarm.persistence.bodies import Head, decode_checkpoint, encode_checkpoint
from agentfarm.persistence.serde import FaithfulSerializer, serde_of

THREAD = "00000000-0000-4000-8000-000000000001"


class Counting(FaithfulSerializer):
    """Counts the values that are read."""

    read = 0

    def load(self, data: tuple[str, bytes], *, place: str = "The state") -> Any:
        self.read += 1
        return super().load(data, place=place)


def head_with(sends: list[Send]) -> Head:
    checkpoint: Checkpoint = {
        **empty_checkpoint(),
        "channel_values": {TASKS: sends, "log": ["a"]},
        "channel_versions": {TASKS: "1", "log": "1"},
    }
    encoded = encode_checkpoint(
        serde_of(None), {"configurable": {}}, checkpoint, {"source": "loop", "step": 1, "parents": {}},
        {TASKS: "1", "log": "1"}, parent_id=None,
    )  # fmt: skip
    return Head(encoded.body, encoded.blobs)


@pytest.mark.parametrize("width", [1, 2, 40])
def test_sends_come_back_as_they_were(width: int) -> None:
    sends = [Send("work", {"number": number}) for number in range(width)]

    found = decode_checkpoint(serde_of(None), THREAD, "", head_with(sends), ())

    assert found.checkpoint["channel_values"] == {TASKS: sends, "log": ["a"]}


def test_a_sibling_reads_no_other_siblings_send() -> None:
    sends = [Send("work", {"number": number}) for number in range(40)]
    serde = Counting()

    found = decode_checkpoint(serde, THREAD, "", head_with(sends), (), packet=7)

    assert found.checkpoint["channel_values"][TASKS] == [None] * 7 + [sends[7]] + [None] * 32
    assert serde.read == 2  # its Send, and the other channel


def test_a_version_that_is_stored_already_is_nothing_to_grow_from() -> None:
    """A node has changed a value in place, and returned nothing; the parent's bytes are not at hand."""
    serde, config = FaithfulSerializer(), {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    said = [f"{number:0100}" for number in range(100)]

    def put(values: list[str], version: str, parent: Any, new: dict[str, str]) -> Any:
        checkpoint: Any = {
            **empty_checkpoint(), "channel_values": {"said": values}, "channel_versions": {"said": version}
        }  # fmt: skip
        parent_id = str(parent.checkpoint_id) if parent else None
        parts = parent.parts if parent else None
        return encode_checkpoint(serde, config, checkpoint, {}, new, parent_id=parent_id, parent=parts)

    stored = dict(put(said, "1", None, {"said": "1"}).blobs)
    changed = [*said, "in place"]
    again = put(changed, "1", None, {})
    for key, blob in again.blobs.items():
        stored.setdefault(key, blob)  # as Postgres does
    grown = put([*changed, "returned"], "2", again, {"said": "2"})
    stored.update(grown.blobs)

    head = Head(grown.body, {key: stored[key] for key in grown.refs})
    found = decode_checkpoint(serde, "t", "", head, ())
    assert found.checkpoint["channel_values"]["said"] == [*changed, "returned"]
