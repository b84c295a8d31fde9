"""A value that grows at its end: what is stored of it, and that it is whole whatever becomes of the versions before."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from agentfarm.messages import ExecuteNode
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.run_options import Persistence
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand, begin, config_of, go_on, serde_for, start
from tests.integration.persistence.postgres import Home, wait_for

pytestmark = pytest.mark.parametrize("tier", ["postgres", "redis"])

SAID = [f"{number:0500}" for number in range(40)]


class Chat:
    """A thread on which runs add to a list, each by its input and by one node."""

    def __init__(self, home: Home, hand: Hand, tenant: Tenant, tier: Persistence) -> None:
        self.home, self.hand, self.tenant, self.tier = home, hand, tenant, tier
        self.thread_id = uuid4()
        self.said: list[str] = []
        self.after: list[list[str]] = []  # each run

    def ask(self, *added: str) -> ExecuteNode:
        """Begin a run, as far as its first node."""
        first = self.hand.claim(start(self.home, self.tenant, self.thread_id, tier=self.tier))
        (to_one,) = self.hand.commit(first, begin(first, "one", said=[*self.said, *added])).ready
        return to_one

    def turn(self, *added: str) -> None:
        message = self.ask(*added)
        one = self.hand.claim(message)
        self.said = [*self.said, *added, f"answer to {added[-1]}"]
        self.hand.commit(one, go_on(one, said=self.said))
        self.after.append(self.said)
        wait_for(
            lambda: self.home.query("SELECT 1 FROM farm.run WHERE run_id = %s AND status = 'success'", message.run_id),
            what="the run's end in Postgres",
        )

    @property
    def saver(self) -> TenantSaver:
        return TenantSaver(self.home.app, self.tenant.id, serde_for("graph"))

    def states(self, thread_id: UUID | None = None) -> list[list[str]]:
        """Of all checkpoints, the newest first."""
        config = {"configurable": {"thread_id": str(thread_id or self.thread_id), "checkpoint_ns": ""}}
        return [one.checkpoint["channel_values"]["said"] for one in self.saver.list(config)]  # type: ignore[arg-type]

    def stored(self) -> list[int]:
        """Bytes of each blob."""
        sql = "SELECT length(blob) FROM farm.checkpoint_blob WHERE thread_id = %s ORDER BY length(blob) DESC"
        return [int(str(size)) for (size,) in self.home.query(sql, self.thread_id)]


@pytest.fixture
def chat(home: Home, hand: Hand, acme: Tenant, tier: Persistence) -> Chat:
    made = Chat(home, hand, acme, tier)
    made.turn(*SAID)
    for number in range(5):
        made.turn(f"and {number}")
    return made


def test_each_version_is_stored_as_what_it_added_and_read_whole(chat: Chat) -> None:
    whole, *others = chat.stored()

    assert whole > 40 * 500
    assert sum(others) < 1_000
    assert chat.states()[0] == chat.after[-1]
    assert chat.states()[::2] == chat.after[::-1]


def test_a_worker_that_has_seen_nothing_reads_it_whole(
    chat: Chat, home: Home, hands: Callable[..., Hand], acme: Tenant, tier: Persistence
) -> None:
    found = hands("another").claim(start(home, acme, chat.thread_id, tier=tier))

    loaded = found.saver.get_tuple(config_of(found))  # type: ignore[arg-type]

    assert loaded is not None
    assert loaded.checkpoint["channel_values"]["said"] == chat.after[-1]


def test_what_is_pruned_takes_no_piece_along_that_another_needs(chat: Chat) -> None:
    before = len(chat.stored())

    chat.saver.prune([str(chat.thread_id)])

    assert chat.states() == [chat.after[-1]]
    assert 1 < len(chat.stored()) < before


def test_what_is_rolled_back_takes_no_piece_along_that_another_needs(chat: Chat, acme: Tenant) -> None:
    message = chat.ask("never mind")

    runs = PostgresRuns(Databases(chat.home.app), serde_for, behind=chat.hand.behind)
    runs.cancel(acme, chat.thread_id, message.run_id, rollback=True)

    assert chat.states()[0] == chat.after[-1]
    chat.turn("again")
    assert chat.states()[0] == chat.after[-1]
    assert "never mind" not in chat.after[-1]


def test_a_copy_is_whole(chat: Chat) -> None:
    target = uuid4()

    chat.saver.copy_thread(str(chat.thread_id), str(target))

    assert chat.states(target) == chat.states()
