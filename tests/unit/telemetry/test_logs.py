"""The log as an operator reads it."""

import json
import logging
import sys
from uuid import uuid4

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy

from agentfarm.telemetry.logs import log_fields, logging_config, make_formatter
from agentfarm.tenancy import Tenant, tenant_scope

SECRET = "the-prompt"


@pytest.fixture
def written() -> "list[str]":
    return []


@pytest.fixture
def log(request: pytest.FixtureRequest, written: list[str]) -> logging.Logger:
    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    logger = logging.getLogger(request.node.nodeid)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = Lines()
    handler.setFormatter(make_formatter(as_json=getattr(request, "param", True)))
    logger.addHandler(handler)
    return logger


def test_a_line_is_one_json_object_with_its_facts(log: logging.Logger, written: list[str]) -> None:
    log.warning("a run ended", extra={"run_id": "r1"})

    line = json.loads(written[0])
    assert line["event"] == "a run ended"
    assert line["run_id"] == "r1"
    assert line["level"] == "warning"
    assert line["timestamp"].endswith("Z")


def test_a_line_carries_the_request_and_the_tenant_it_belongs_to(log: logging.Logger, written: list[str]) -> None:
    with log_fields(request_id="abc"), tenant_scope(Tenant(uuid4(), "acme")):
        log.info("inside")
    log.info("outside")

    inside, outside = map(json.loads, written)
    assert (inside["request_id"], inside["tenant"]) == ("abc", "acme")
    assert not {"request_id", "tenant"} & set(outside)


@pytest.mark.parametrize("log", [True, False], ids=["json", "text"], indirect=True)
def test_an_exception_is_told_without_its_values(log: logging.Logger, written: list[str]) -> None:
    prompt = SECRET
    try:
        raise LookupError(prompt)
    except LookupError:
        log.exception("failed")
        log.warning("failed", exc_info=sys.exc_info()[1])

    for line in written:
        assert "LookupError" in line
        assert "test_logs.py" in line
        assert SECRET not in line


def test_what_json_does_not_know_is_named_by_type(log: logging.Logger, written: list[str]) -> None:
    log.info("odd", extra={"thing": object()})

    assert json.loads(written[0])["thing"] == "<object>"


def test_what_a_node_s_error_says_is_not_told_when_it_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    def node(state: dict[str, int]) -> None:
        raise ConnectionError(SECRET)

    policy = RetryPolicy(max_attempts=2, initial_interval=0, jitter=False)
    graph = StateGraph(dict).add_node("node", node, retry_policy=policy).add_edge(START, "node").compile()
    for name, configured in logging_config(level="INFO", as_json=True)["loggers"].items():
        caplog.set_level(configured.get("level", "INFO"), logger=name)
    caplog.set_level("INFO")

    with pytest.raises(ConnectionError):
        graph.invoke({"n": 1})

    assert SECRET not in caplog.text
