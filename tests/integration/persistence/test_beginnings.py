"""Runs that begin at a checkpoint which the client names."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.base.id import uuid6

from agentfarm.errors import NotFound
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.test_builds import Build, line, say


def checkpoints(home: Home, thread_id: UUID) -> list[UUID]:
    """Oldest first."""
    found = home.query("SELECT checkpoint_id FROM farm.checkpoint WHERE thread_id = %s ORDER BY 1", thread_id)
    return [UUID(str(one)) for (one,) in found]


def test_a_run_from_a_checkpoint_that_is_not_the_threads_is_refused_and_leaves_nothing(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    farm = Build(home, hands(), acme, line(a=say(["a"])))
    thread_id, other_id = uuid4(), uuid4()
    for each in (thread_id, other_id):
        farm.run(each, input={"log": []})
    (first, *_), before = checkpoints(home, thread_id), farm.rows()
    there, elsewhere, nowhere = str(first), str(checkpoints(home, other_id)[0]), str(uuid6())

    for place in (elsewhere, nowhere):
        with pytest.raises(NotFound, match="Checkpoint"):
            farm.admit(thread_id, input={"log": []}, checkpoint_id=place)
        with pytest.raises(NotFound, match="Checkpoint"):
            farm.admit(thread_id, input={"log": []}, checkpoint={"checkpoint_id": there, "checkpoint_map": {"": place}})
    with pytest.raises(NotFound, match="Thread"):
        farm.admit(uuid4(), input={"log": []}, checkpoint_id=there)

    assert farm.rows() == before
    assert farm.run(thread_id, input={"log": ["forked"]}, checkpoint_id=there).status == "success"
