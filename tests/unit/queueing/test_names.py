import pytest

from agentfarm.errors import Misconfigured
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
