"""Values that grow at their end: what is stored of each version, and that it comes back as it was."""

import os
import subprocess
import sys
from itertools import pairwise
from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentfarm.persistence.pieces import MIN_BYTES, Ref, cut, join, keys_of


class Stored:
    """What a thread has in its blobs: a version after the other is saved, and every one of them can be read."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.ref: Ref | None = None
        self.versions: list[tuple[Ref, bytes]] = []

    def save(self, data: bytes, *, forgets: bool = False) -> int:
        """Bytes that were written. forgets: by a worker that does not have the version before at hand."""
        self.ref, new = cut(data, f"messages:{len(self.versions)}", self.ref, {} if forgets else self.blobs)
        assert not new.keys() & self.blobs.keys()
        self.blobs.update(new)
        self.versions.append((self.ref, data))
        return sum(map(len, new.values()))

    def check(self) -> None:
        for ref, data in self.versions:
            assert join(ref, {key: self.blobs[key] for key in keys_of(ref)}) == data


def packed(value: Any) -> bytes:
    return b"m" + ormsgpack.packb(value)


def message(number: int) -> dict[str, Any]:
    return {"content": f"{number:0200}"}


def test_what_grows_at_its_end_is_stored_as_what_was_added() -> None:
    stored, messages = Stored(), [message(number) for number in range(1_000)]
    whole = stored.save(packed(messages))

    written = [stored.save(packed(messages := [*messages, message(number)])) for number in range(1_000, 1_200)]

    stored.check()
    added = len(packed([message(0)]))
    assert max(written) < whole
    assert sum(written) <= added * 200 * 8  # each addition at most log2(200) times
    assert len(keys_of(stored.ref or "")) <= 1 + 8


def test_a_conversation_costs_what_its_length_times_its_logarithm_is() -> None:
    stored, messages, written = Stored(), [], 0

    for number in range(2_000):
        messages.append(message(number))
        written += stored.save(packed(messages))

    stored.check()
    assert written <= len(packed(messages)) * 11
    assert len(keys_of(stored.ref or "")) <= 11


@pytest.mark.parametrize("size", [14, 15, 16, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("make", [list, lambda n: dict.fromkeys(map(str, n), 0), lambda n: "x" * len(n)])
def test_it_may_grow_past_what_msgpack_has_a_shorter_front_for(make: Any, size: int) -> None:
    stored = Stored()

    for length in (size, size + 1, size + 2, size + 400):
        stored.save(packed(make(range(length))))

    stored.check()


def test_bytes_that_grow_are_stored_as_what_was_added() -> None:
    stored = Stored()
    stored.save(b"b" + bytes(100_000))

    assert stored.save(b"b" + bytes(100_010)) == 10
    stored.check()


def test_what_is_small_or_of_another_kind_is_stored_whole() -> None:
    stored = Stored()

    for data in (packed([1]), packed([1, 2]), b"p" + bytes(MIN_BYTES), b"p" + bytes(MIN_BYTES + 1), b"n"):
        assert stored.save(data) == len(data)

    stored.check()


def test_what_lost_its_end_needs_nothing_new() -> None:
    stored, messages = Stored(), [message(number) for number in range(100)]
    stored.save(packed(messages))
    stored.save(packed([*messages, message(100)]))

    assert stored.save(packed(messages)) == 0
    stored.check()


def test_what_changed_at_its_beginning_is_stored_whole() -> None:
    stored, messages = Stored(), [message(number) for number in range(100)]
    stored.save(packed(messages))

    changed = packed(messages[1:])
    assert stored.save(changed) == len(changed)
    stored.check()


def test_who_does_not_have_the_version_before_stores_it_whole() -> None:
    stored, messages = Stored(), [message(number) for number in range(100)]
    stored.save(packed(messages))

    assert stored.save(packed([*messages, message(100)]), forgets=True) > MIN_BYTES
    stored.check()


WRITE = """
import sys
from langchain_core.messages import AIMessage
from agentfarm.persistence.serde import FaithfulSerializer
usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
call = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
said = AIMessage("hi", id="1", name="a", response_metadata={"m": 1}, usage_metadata=usage, tool_calls=[call])
serde = FaithfulSerializer()
once = serde.dumps_typed([said])
assert serde.dumps_typed(serde.loads_typed(once)) == once
sys.stdout.buffer.write(once[1])
"""


def test_a_message_is_the_same_bytes_in_every_process_and_when_it_was_read() -> None:
    """Python's hashes differ between them, and with these the order of a set."""
    written = {
        subprocess.run(
            [sys.executable, "-c", WRITE], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(written) == 1


#: What a node may do to a list: add some, drop some of the end, change one.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 60)),
        st.tuples(st.just("drop"), st.integers(0, 60)),
        st.tuples(st.just("change"), st.integers(0, 10_000)),
        st.tuples(st.just("forget"), st.integers(1, 5)),
    ),
    max_size=40,
)


@given(STEPS)
def test_every_version_comes_back_whatever_was_done_to_it(steps: list[tuple[str, int]]) -> None:
    stored, messages = Stored(), [message(number) for number in range(40)]
    stored.save(packed(messages))

    for number, (what, count) in enumerate(steps):
        if what in ("add", "forget"):
            messages = [*messages, *(message(number * 100 + at) for at in range(count))]
        elif what == "drop":
            messages = messages[: len(messages) - count]
        elif messages:
            messages[count % len(messages)] = message(number)
        stored.save(packed(messages), forgets=what == "forget")

    stored.check()
    lengths = [len(stored.blobs[key]) for key in keys_of(stored.ref or "")]
    assert all(longer > 2 * shorter for longer, shorter in pairwise(lengths[1:]))


def test_additions_that_get_shorter_do_not_pile_up() -> None:
    stored, said, most = Stored(), ["x" * 10_000], 0

    for length in range(6_000, 4_000, -2):
        said.append("x" * length)
        stored.save(packed(said))
        most = max(most, len(keys_of(stored.ref or "")))

    stored.check()
    assert most <= 24  # log2 of its 5 MB, and one
