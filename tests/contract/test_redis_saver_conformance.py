"""LangGraph's own conformance suite over the saver that a node has whose run Redis moves.

The suite's threads are states of a subgraph inside a node: what a node saves at once goes to Redis, and what it reads
is brought to Postgres before. Nothing else brings anything there while the suite runs. What the suite does to threads
as a whole is done as the product does it.
"""

import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.conformance import checkpointer_test
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.validate import validate

from agentfarm.errors import LeaseLost, NotFound
from agentfarm.persistence.commits import POSTGRES
from agentfarm.persistence.database import Databases
from agentfarm.persistence.redis_tier.saver import RedisSaver
from agentfarm.persistence.redis_tier.scripts import Place, RedisScripts
from agentfarm.persistence.redis_tier.tier import RedisTier
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.records import Claimed
from agentfarm.tenancy import Tenant
from tests.in_redis import keys_of_runs
from tests.integration.persistence.conftest import home_in
from tests.integration.persistence.farmhands import Hand, begin, go_on, serde_for, start
from tests.integration.persistence.postgres import Home
from tests.services import OwnDatabase

#: The node, and the namespace of a subgraph in it that keeps its state from call to call.
NODE = "suite"


@pytest.fixture(scope="module")
def home(database: OwnDatabase) -> Iterator[Home]:
    with home_in(database) as made:
        yield made


@pytest.fixture
def hand(home: Home, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hand]:
    """A worker that hands in what Redis has when somebody reads, and when a run ends; not by the way."""
    made = Hand(home, redis_url=redis_url)
    monkeypatch.setattr(made.behind, "begin", lambda: None)
    yield made
    made.stop()


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """What Redis answered to each that was put there."""
    real, told = RedisScripts.put, list[str]()

    def put(self: RedisScripts, place: Place, *asked: Any) -> tuple[str, int]:
        verdict, number = real(self, place, *asked)
        told.append(verdict)
        return verdict, number

    monkeypatch.setattr(RedisScripts, "put", put)
    return told


@pytest.fixture
def on_the_loop(monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """Where Redis was asked for what it has by the thread of the event loop, which everything else waits for."""
    real, told = RedisTier.bring, list[str]()

    def bring(self: RedisTier, place: Place) -> None:
        if threading.current_thread() is threading.main_thread():
            told.append(place.key)
        real(self, place)

    monkeypatch.setattr(RedisTier, "bring", bring)
    return told


@dataclass(frozen=True, slots=True)
class Node:
    """Of a run that Redis moves. run: as the suite calls it in metadata, if it does"""

    claimed: Claimed
    saver: RedisSaver
    run: str | None


class NodesSaver(BaseCheckpointSaver[str]):
    """A thread is that of a node, from when it is first asked for. A run of the suite's is a run of ours.

    puts  what was saved so far
    """

    def __init__(self, home: Home, hand: Hand, tenant: Tenant) -> None:
        super().__init__(serde=serde_for(None))
        self.home, self.hand, self.tenant = home, hand, tenant
        self.threads = PostgresThreads(Databases(home.app), serde_for, behind=hand.behind)
        self.puts = 0
        self._nodes: dict[str, Node] = {}  # by thread
        self._runs: dict[str, list[UUID]] = defaultdict(list)  # of ours, by the suite's

    # ----------------------------------------------------------------------- by the node

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await self._saver(config).aget_tuple(_inside(config))
        return None if found is None else _outside(found)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        assert config is not None, "the suite lists no thread but one that it names"
        async for found in self._saver(config).alist(_inside(config), filter=filter, before=before, limit=limit):
            yield _outside(found)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self.puts += 1
        saver = self._saver(config, run=metadata.get("run_id"))
        return _outside_config(await saver.aput(_inside(config), checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self.puts += 1
        await self._saver(config).aput_writes(_inside(config), writes, task_id, task_path)

    # ----------------------------------------------------------------------- by the thread

    async def adelete_thread(self, thread_id: str) -> None:
        with suppress(NotFound):  # which is no error here
            self.threads.delete(self.tenant, UUID(thread_id))
        if thread_id in self._nodes:
            claimed = self._leave(thread_id)
            with pytest.raises(LeaseLost):
                self.hand.commit(claimed, go_on(claimed))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self.threads.copy(self.tenant, UUID(source_thread_id), target=UUID(target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread_id)
                continue
            with suppress(NotFound):
                self.threads.keep_latest(self.tenant, UUID(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Of runs that are over: those that are not yet are ended first, which brings all that they made."""
        for thread_id, node in list(self._nodes.items()):
            if node.run in run_ids:
                self._end(thread_id)
        ours = [str(run_id) for named in run_ids for run_id in self._runs.pop(named, [UUID(named)])]
        self.threads.saver(self.tenant, None).delete_for_runs(ours)

    # ----------------------------------------------------------------------- runs

    def _saver(self, config: RunnableConfig, *, run: str | None = None) -> RedisSaver:
        thread_id = config["configurable"]["thread_id"]
        if (node := self._nodes.get(thread_id)) is not None:
            if run in (None, node.run):
                return node.saver
            self._end(thread_id)
        made = self._nodes[thread_id] = self._begin(UUID(thread_id), run)
        return made.saver

    def _begin(self, thread_id: UUID, run: str | None) -> Node:
        first = self.hand.claim(start(self.home, self.tenant, thread_id, tier="redis"))
        (to_node,) = self.hand.commit(first, begin(first, NODE)).ready
        if run is not None:
            self._runs[run].append(to_node.run_id)
        claimed = self.hand.claim(to_node)
        assert isinstance(claimed.saver, RedisSaver)
        return Node(claimed, claimed.saver, run)

    def _end(self, thread_id: str) -> None:
        claimed = self._leave(thread_id)
        ended = self.hand.commit(claimed, go_on(claimed)).ended
        assert ended is not None
        assert ended.status == "success"

    def _leave(self, thread_id: str) -> Claimed:
        """The claim of its node, which saves nothing more. Raises AssertionError: its run is Postgres' by now."""
        node = self._nodes.pop(thread_id)
        assert node.saver.tier is not POSTGRES, "it was adopted: what was put since went past Redis"
        return node.claimed

    def end_all(self) -> None:
        """Raises AssertionError: one of the runs is Postgres' by now, or does not end well."""
        for thread_id in list(self._nodes):
            self._end(thread_id)


def _inside(config: RunnableConfig) -> RunnableConfig:
    ns = config["configurable"]["checkpoint_ns"]
    return _at(config, f"{NODE}|{ns}" if ns else NODE)


def _outside_config(config: RunnableConfig) -> RunnableConfig:
    ns: str = config["configurable"]["checkpoint_ns"]
    assert ns.startswith(NODE)
    return _at(config, ns.removeprefix(NODE).removeprefix("|"))


def _at(config: Mapping[str, Any], ns: str) -> RunnableConfig:
    return {"configurable": {**config["configurable"], "checkpoint_ns": ns}}


def _outside(found: CheckpointTuple) -> CheckpointTuple:
    parent = found.parent_config
    return found._replace(
        config=_outside_config(found.config), parent_config=None if parent is None else _outside_config(parent)
    )


@pytest.mark.parametrize("capability", sorted(one.value for one in ALL_CAPABILITIES))
async def test_the_saver_of_a_node_whose_run_redis_moves_passes_langgraphs_conformance_suite(
    capability: str, home: Home, hand: Hand, verdicts: Sequence[str], on_the_loop: Sequence[str]
) -> None:
    tenant = Tenant(id=uuid4(), slug="acme")
    saver = NodesSaver(home, hand, tenant)

    @checkpointer_test(name=f"RedisSaver {capability}")
    async def registered() -> AsyncIterator[BaseCheckpointSaver[str]]:
        yield saver
        saver.end_all()

    report = await validate(registered, capabilities={capability})

    result = report.results[capability]
    assert result.detected
    assert result.failures == []
    assert result.tests_passed > 0
    assert verdicts == ["ok"] * saver.puts
    assert saver.puts > 0
    assert on_the_loop == []
    assert keys_of_runs(hand.scripts.servers.of("any").client, f"t:{tenant.id.hex}:hot:*") == []
