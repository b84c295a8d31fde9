"""Ids that sort by time, and ids from outside."""

import pytest

from agentfarm.errors import InvalidId
from agentfarm.ids import assistant_id, new_id, parse_uuid


def test_new_ids_are_version_7_and_sort_by_time() -> None:
    made = [new_id() for _ in range(200)]

    assert {one.version for one in made} == {7}
    assert [one.int >> 80 for one in made] == sorted(one.int >> 80 for one in made)
    assert len(set(made)) == len(made)


def test_the_default_assistant_of_a_graph_has_one_id_everywhere() -> None:
    assert assistant_id("agent") == assistant_id("agent")
    assert assistant_id("agent") != assistant_id("other")
    assert str(assistant_id("agent")) == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"


@pytest.mark.parametrize(
    "text", ["", "hostile", "../../../etc/passwd", "{}", "*" * 36, 777, None, "urn:uuid:" + "0" * 32, "0" * 31]
)
def test_what_is_no_id_is_refused_and_not_repeated(text: object) -> None:
    with pytest.raises(InvalidId) as refused:
        parse_uuid(text, what="thread_id")

    assert "thread_id must be a UUID" in str(refused.value)
    assert not text or str(text) not in str(refused.value)


def test_an_id_is_read_with_and_without_dashes() -> None:
    one = new_id()

    assert parse_uuid(str(one), what="id") == parse_uuid(one.hex, what="id") == parse_uuid(one, what="id") == one
