import pytest

from agentfarm.errors import Misconfigured
from agentfarm.messages import at_build
from agentfarm.queueing.names import broker_name, graph_name, queue_names
from tests.unit.queueing.conftest import NOWHERE, settings_on


def test_every_farm_has_io_and_cpu_beside_what_operator_and_nodes_name() -> None:
    settings = settings_on(NOWHERE["redis"], extra_queues=("quarantine",))

    assert queue_names(settings, {"gpu", "io"}) == ("io", "cpu", "quarantine", "gpu")


def test_the_default_queue_is_one_of_them_whatever_its_name() -> None:
    assert queue_names(settings_on(NOWHERE["redis"], default_queue="chat"))[0] == "chat"


@pytest.mark.parametrize("name", ["a.b", "", "Gpu", "a b", "-a", "ä", "x" * 49, "io#", "io*"])
def test_a_name_that_a_broker_reads_otherwise_is_refused_by_name(name: str) -> None:
    with pytest.raises(Misconfigured, match="metadata="):
        queue_names(settings_on(NOWHERE["redis"]), [name])


def test_a_brokers_name_leads_back_to_the_graphs() -> None:
    assert broker_name("gpu") == "gpu.v1"
    assert graph_name(broker_name("gpu")) == "gpu"


@pytest.mark.parametrize(
    ("build", "told"), [("1.4", "gpu.v1.b-1_4"), ("v1.v1", "gpu.v1.b-v1_v1"), ("a-b", "gpu.v1.b-a-b")]
)
def test_a_builds_queue_has_a_name_of_its_own_that_leads_back(build: str, told: str) -> None:
    queue = at_build("gpu", build)

    assert broker_name(queue) == told
    assert graph_name(told) == queue


def test_no_queue_of_a_build_ends_as_another_queue_does() -> None:
    # A topic exchange would give a delayed message for the one to the other as well.
    names = [broker_name(at_build(queue, build)) for queue in ("io", "cpu") for build in ("", "io.v1", "cpu", "1")]

    assert not [(one, other) for one in names for other in names if one.endswith(f".{other}")]
