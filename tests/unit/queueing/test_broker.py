import pytest
from celery import Celery

from agentfarm.errors import Misconfigured
from agentfarm.queueing.lease_keeper import LeaseKeeper
from tests.unit.queueing.conftest import NOWHERE, app_on


def test_a_message_outlives_the_worker_that_has_it(app: Celery) -> None:
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1


def test_nothing_but_json_is_read_and_no_result_is_kept(app: Celery) -> None:
    assert list(app.conf.accept_content) == ["json"]
    assert app.conf.task_ignore_result
    assert app.conf.result_backend is None


def test_a_queue_that_was_not_declared_is_an_error_and_not_made(app: Celery) -> None:
    assert not app.conf.task_create_missing_queues
    with pytest.raises(KeyError):
        app.amqp.queues["typo"]


def test_a_worker_may_name_its_queues_as_graphs_do(app: Celery) -> None:
    app.amqp.queues.select(["io"])

    assert list(app.amqp.queues.consume_from) == ["io.v1"]


def test_the_environment_does_not_replace_the_broker_that_was_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere.invalid/9")

    app = app_on(NOWHERE["amqp"])

    assert app.connection_for_write().hostname == "127.0.0.1"
    assert app.connection_for_read().transport_cls == "amqp"


def test_django_is_not_loaded_into_workers(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")

    assert app_on(NOWHERE["redis"])._fixups == []


def test_rabbitmq_gets_quorum_queues_with_a_limit_and_a_place_for_dead_letters() -> None:
    app = app_on(NOWHERE["amqp"])

    for queue in app.amqp.queues.values():
        assert queue.queue_arguments["x-queue-type"] == "quorum"
        assert queue.queue_arguments["x-delivery-limit"] == 20
        assert queue.queue_arguments["x-dead-letter-exchange"] == "agentfarm.dead"
        assert queue.exchange.type == "topic"
    assert app.conf.broker_transport_options["confirm_publish"]


def test_redis_gets_a_keeper_of_leases_and_a_sweep_that_comes_every_five_seconds() -> None:
    app = app_on(NOWHERE["redis"])
    options = app.conf.broker_transport_options

    assert LeaseKeeper in app.steps["consumer"]
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] == 5
    assert options["visibility_timeout"] == 30
    assert LeaseKeeper not in app_on(NOWHERE["amqp"]).steps["consumer"]


def test_events_for_flower_can_be_switched_off() -> None:
    assert app_on(NOWHERE["redis"]).conf.worker_send_task_events
    assert not app_on(NOWHERE["redis"], task_events=False).conf.worker_send_task_events


def test_sqs_is_refused_with_what_to_use() -> None:
    with pytest.raises(Misconfigured, match=r"amqp://.*redis://"):
        app_on("sqs://")


@pytest.mark.parametrize("kind", ["redis", "amqp"])
@pytest.mark.parametrize(("build", "ending"), [("", ""), ("1.4", ".b-1_4")])
def test_a_worker_reads_the_queues_of_its_own_build_however_they_are_chosen(kind: str, build: str, ending: str) -> None:
    def consumed(include: list[str] | None, exclude: list[str] | None) -> set[str]:
        app = app_on(NOWHERE[kind], "gpu", build=build)
        app.amqp.queues.select(include)
        app.amqp.queues.deselect(exclude)
        return set(app.amqp.queues.consume_from)

    everything = {f"{name}.v1{ending}" for name in ("io", "cpu", "gpu")}
    assert consumed(None, None) == everything
    assert consumed(["cpu"], None) == consumed(["cpu.v1"], None) == {f"cpu.v1{ending}"}
    assert consumed(None, ["cpu"]) == consumed(None, ["cpu.v1"]) == everything - {f"cpu.v1{ending}"}


def test_a_queue_that_is_not_there_cannot_be_chosen() -> None:
    with pytest.raises(KeyError):
        app_on(NOWHERE["redis"]).amqp.queues.select(["gpu.v1"])
