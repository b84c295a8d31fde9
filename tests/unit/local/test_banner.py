"""What `make run` prints fits what runs: as whom one comes without a key, by which names, and with one's own graph."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agentfarm.local.address import Address
from agentfarm.local.banner import render_banner
from agentfarm.local.farm import OWN_CONFIG, Access

ACCESS = Access("af_demo", "af_other", "admin", "secret")


def banner(folder: Path, *graphs: str, host: str = "127.0.0.1", config: Path = OWN_CONFIG, **environment: str) -> str:
    started_with = {"AGENTFARM_CONFIG": str(config), "AGENTFARM_ALLOWED_HOSTS": "localhost,desk", **environment}
    info = {"graphs": dict.fromkeys(graphs or ("agent",), "ok")}
    return render_banner(Address(host, 2024, 5555), ACCESS, info, started_with, folder)


def body_of(text: str) -> dict[str, Any]:
    """What the printed curl sends."""
    sent = re.search(r"-d '(.*)'$", text, re.MULTILINE)
    assert sent
    found: dict[str, Any] = json.loads(sent[1])
    return found


def test_it_says_whom_one_is_without_a_key_only_where_one_may_come_without(tmp_path: Path) -> None:
    assert "without a key you are tenant acme" in banner(tmp_path, ANONYMOUS_TENANT="acme")
    assert "without a key" not in banner(tmp_path)
    assert "without a key" not in banner(tmp_path, ANONYMOUS_TENANT="")


def test_it_says_which_names_are_answered_where_others_can_come_in(tmp_path: Path) -> None:
    text = banner(tmp_path, host="0.0.0.0")

    assert "Hosts    localhost desk" in text
    assert "AGENTFARM_ALLOWED_HOSTS=" in text
    assert "http://0.0.0.0" not in text
    assert "Hosts" not in banner(tmp_path)


def test_the_calls_of_our_own_agent_ask_it_something(tmp_path: Path) -> None:
    sent = body_of(banner(tmp_path, "agent", "approval"))

    assert (sent["assistant_id"], sent["stream_mode"]) == ("agent", "messages-tuple")
    assert sent["input"]["messages"]


@pytest.mark.parametrize("graph", ["agent", "flow"])
def test_the_calls_of_another_ones_graph_suppose_nothing_of_its_state(tmp_path: Path, graph: str) -> None:
    text = banner(tmp_path, graph, config=tmp_path / "langgraph.json")

    assert body_of(text) == {"assistant_id": graph, "stream_mode": "values", "input": {}}
    assert "input: what your graph takes" in text


@pytest.mark.parametrize("config", [OWN_CONFIG, Path("/elsewhere/langgraph.json")])
def test_the_snippet_is_python(tmp_path: Path, config: Path) -> None:
    text = banner(tmp_path, config=config)

    lines = text[text.index("  from langgraph_sdk") : text.index("  Ctrl-C")].splitlines()
    assert len(ast.parse("\n".join(line[2:] for line in lines)).body) == 3


@pytest.mark.parametrize("quote", ['"', '\\"'], ids=["text", "json"])
def test_keys_that_the_web_passed_over_at_this_start_are_told(tmp_path: Path, quote: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "web.log").write_text(
        "--- 2026-01-01 00:00:00 web starts\n"
        f"langgraph.json: key {quote}yesterday{quote} has no effect on this server\n"
        "--- 2026-01-02 00:00:00 web starts\n"
        f"langgraph.json: key {quote}foo{quote} has no effect on this server\n"
        f"langgraph.json: key {quote}store{quote} has no effect on this server\n"
    )

    text = banner(tmp_path)

    assert f"Without effect here, in {OWN_CONFIG}: foo, store\n" in text
    assert "yesterday" not in text
