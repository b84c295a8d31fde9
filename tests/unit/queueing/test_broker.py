import pytest
from celery import Celery
from pydantic import ValidationError

from agentfarm.conf import render_problems
from agentfarm.errors import Misconfigured
from agentfarm.queueing import sqs
from agentfarm.queueing.broker import queues_read_by
from agentfarm.queueing.lease_keeper import LeaseKeeper, ThreadedLeaseKeeper
from agentfarm.queueing.names import broker_name
from tests.unit.queueing.conftest import NOWHERE, app_on, settings_on


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


def test_without_what_sqs_needs_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs, "find_spec", lambda name: None if name == "pycurl" else object())

    with pytest.raises(Misconfigured, match=r"needs pycurl, .*requirements-sqs\.txt"):
        app_on(NOWHERE["sqs"])


def test_sqs_without_a_region_is_refused_and_not_sought_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(Misconfigured, match="AGENTFARM_SQS_REGION"):
        app_on("sqs://")
    assert app_on("sqs://", sqs_region="eu-central-1").conf.broker_transport_options["region"] == "eu-central-1"


@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("sqs://", True),
        ("sqs://vpce.example.com", True),
        ("sqs://k:s@elastic:443", True),
        ("sqs://k:s@moto:5000", False),
    ],
)
def test_only_a_server_with_a_port_of_its_own_is_spoken_to_without_tls(url: str, secure: bool) -> None:
    options = app_on(url, sqs_region="eu-central-1").conf.broker_transport_options

    assert options["is_secure"] is secure


@pytest.mark.parametrize(
    "url", ["sqs://AKIA:se/cr+et@", "sqs://AKIA:secret@host:0", "sqs://AKIA:secret@/x", "sqs://?a=b"]
)
def test_an_address_that_is_none_of_sqs_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(ValidationError, match="CELERY_BROKER_URL is not an address of SQS") as refused:
        settings_on(url)
    assert "AKIA" not in render_problems(refused.value)


def test_sqs_is_asked_for_nothing_that_it_cannot_do() -> None:
    app = app_on(NOWHERE["sqs"])

    assert ThreadedLeaseKeeper in app.steps["consumer"]
    assert LeaseKeeper not in app.steps["consumer"]
    assert not app.conf.worker_send_task_events
    assert not app.conf.worker_enable_remote_control
    assert app.conf.broker_transport_options["polling_interval"] > 0  # or a busy worker's loop turns at full speed
    assert app.conf.broker_transport_options["queue_name_prefix"] == "agentfarm-"


def test_a_queues_name_that_is_too_long_for_sqs_is_refused_with_what_can_be_shortened() -> None:
    with pytest.raises(Misconfigured, match="AGENTFARM_SQS_PREFIX"):
        app_on(NOWHERE["sqs"], "x" * 48, build="b" * 20)
    app_on(NOWHERE["sqs"], "x" * 48, build="b" * 20, sqs_prefix="f-")


def test_no_queue_can_have_the_name_on_sqs_that_another_has_in_another_build() -> None:
    assert sqs.sqs_name("f-", broker_name("io@v1")) == sqs.sqs_name("f-", broker_name("io-v1-b"))

    with pytest.raises(Misconfigured, match="Rename it"):
        app_on(NOWHERE["sqs"], "io-v1-b")


@pytest.mark.parametrize("kind", list(NOWHERE))
@pytest.mark.parametrize(("build", "ending"), [("", ""), ("1.4", ".b-1_4")])
def test_a_worker_reads_the_queues_of_its_own_build_however_they_are_chosen(kind: str, build: str, ending: str) -> None:
    def consumed(include: list[str] | None, exclude: list[str] | None) -> set[str]:
        app = app_on(NOWHERE[kind], "gpu", build=build)
        app.amqp.queues.select(include)
        app.amqp.queues.deselect(exclude)
        return set(app.amqp.queues.consume_from)

    everything = {f"{name}.v1{ending}" for name in ("io", "cpu", "quarantine", "gpu")}
    assert consumed(None, None) == everything
    assert consumed(["cpu"], None) == consumed(["cpu.v1"], None) == {f"cpu.v1{ending}"}
    assert queues_read_by(app_on(NOWHERE[kind], "gpu", build=build)) == ("io", "cpu", "quarantine", "gpu")
    assert consumed(None, ["cpu"]) == consumed(None, ["cpu.v1"]) == everything - {f"cpu.v1{ending}"}


def test_a_queue_that_is_not_there_cannot_be_chosen() -> None:
    with pytest.raises(KeyError):
        app_on(NOWHERE["redis"]).amqp.queues.select(["gpu.v1"])
