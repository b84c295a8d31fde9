"""langgraph.json as the ecosystem writes it, and what the farm knows of a graph once it is loaded."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.store.memory import InMemoryStore

from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.engine.graphs_config import TtlConfig
from agentfarm.errors import GraphLoadFailed, GraphNotFound, Misconfigured
from agentfarm.run_options import RunAhead, RunChoices
from agentfarm.testing import graphs as known

GRAPH = """
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict, total=False):
    n: int

def node(state: State) -> State:
    return {"n": 1}

builder = StateGraph(State)
builder.add_node("a", node)
builder.add_edge(START, "a")
graph = builder.compile()
"""

Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Writes files and a langgraph.json; what it does to the process is undone."""
    path, modules, environ = list(sys.path), set(sys.modules), dict(os.environ)

    def write(files: dict[str, str], **config: Any) -> Path:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tmp_path / "langgraph.json").write_text(json.dumps({"dependencies": ["."], **config}))
        return tmp_path / "langgraph.json"

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    os.environ.clear()
    os.environ.update(environ)


def test_a_graph_is_named_by_file_or_by_module(project: Project) -> None:
    path = project(
        {"agents_of_test/__init__.py": "", "agents_of_test/one.py": GRAPH},
        graphs={"file": "./agents_of_test/one.py:graph", "module": "agents_of_test.one:graph"},
    )

    registry = GraphRegistry.from_config(path)

    assert registry.ids() == ("file", "module")
    assert isinstance(registry.get("file").graph, Pregel)
    # One module, by the name that the project itself imports it by: stored values name their classes by it.
    assert registry.get("file").graph is registry.get("module").graph
    assert "agents_of_test.one" in sys.modules


def test_an_entry_may_describe_its_graph(project: Project) -> None:
    path = project({"described.py": GRAPH}, graphs={"g": {"path": "./described.py:graph", "description": "does it"}})

    assert GraphRegistry.from_config(path).get("g").description == "does it"


def test_an_entry_says_how_runs_are_executed_that_do_not_say_so(project: Project) -> None:
    said = {"path": "./chosen.py:graph", "run_ahead": {"nodes": 5}, "persistence": "redis"}
    registry = GraphRegistry.from_config(
        project({"chosen.py": GRAPH, "other.py": GRAPH}, graphs={"g": said, "h": "./other.py:graph"})
    )

    assert registry.choices("g") == RunChoices(RunAhead(nodes=5), "redis")
    assert registry.choices("h") == RunChoices()


def test_a_file_whose_name_is_taken_is_loaded_by_another(project: Project) -> None:
    path = project({"json.py": GRAPH}, graphs={"g": "./json.py:graph"})

    assert GraphRegistry.from_config(path).get("g").graph.nodes.keys() == {"__start__", "a"}
    assert json.__file__ != str(path.parent / "json.py")


def test_a_builder_is_compiled_and_a_factory_is_called_once(project: Project) -> None:
    factory = GRAPH + (
        "\nmade = []\n"
        "def plain():\n    made.append(1)\n    return builder\n"
        "def configured(config):\n    return builder.compile(name=config['configurable'].get('name', 'none given'))\n"
        "async def later():\n    return graph\n"
    )
    names = ("builder", "plain", "configured", "later")
    path = project({"factories.py": factory}, graphs={name: f"./factories.py:{name}" for name in names})

    registry = GraphRegistry.from_config(path)

    assert not registry.problems
    assert all(isinstance(registry.get(name).graph, Pregel) for name in names)
    registry.get("plain")
    assert sys.modules["factories"].made == [1]
    assert registry.get("configured").graph.name == "none given"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("def graph(config, runtime): ...", "neither a StateGraph nor a compiled graph"),
        ("def graph(config, model): ...", "'model'"),
        ("from contextlib import contextmanager\n@contextmanager\ndef graph():\n    yield 1", "it is a int"),
        ("graph = 3", "neither a StateGraph nor a compiled graph"),
        ("other = 3", "graph"),
        ("raise ValueError('sk-secret-key')", "ValueError"),
        ("graph = (", "SyntaxError"),
    ],
    ids=[
        "import",
        "nothing made",
        "unknown parameter",
        "context manager of no graph",
        "number",
        "no variable",
        "raises",
        "syntax",
    ],
)
def test_a_graph_that_cannot_be_loaded_is_named_and_the_others_are_served(
    project: Project, code: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = project(
        {"good.py": GRAPH, "broken.py": code}, graphs={"good": "./good.py:graph", "broken": "./broken.py:graph"}
    )

    registry = GraphRegistry.from_config(path)

    assert registry.ids() == ("good",)
    assert why in registry.problems["broken"]
    assert "broken" in registry.problems["broken"]
    assert "secret" not in registry.problems["broken"]
    assert "a graph could not be loaded" in caplog.text
    with pytest.raises(GraphLoadFailed, match="broken"):
        registry.get("broken")


def test_a_graph_that_nobody_serves_is_not_found(project: Project) -> None:
    registry = GraphRegistry.from_config(project({"served.py": GRAPH}, graphs={"served": "./served.py:graph"}))

    with pytest.raises(GraphNotFound, match="served"):
        registry.get("other")


def test_env_is_set_where_the_environment_says_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALREADY_THERE", "stays")
    env = 'FROM_FILE="a b"\nexport SECOND=2 # a comment\nALREADY_THERE=changed\n'

    GraphRegistry.from_config(project({"env.py": GRAPH, ".env": env}, graphs={"g": "./env.py:graph"}, env=".env"))

    assert (os.environ["FROM_FILE"], os.environ["SECOND"], os.environ["ALREADY_THERE"]) == ("a b", "2", "stays")


def test_env_may_be_in_the_file_itself(project: Project) -> None:
    GraphRegistry.from_config(project({"env.py": GRAPH}, graphs={"g": "./env.py:graph"}, env={"IN_PLACE": 1}))

    assert os.environ["IN_PLACE"] == "1"


def test_local_packages_can_be_imported(project: Project) -> None:
    files = {
        "flat/tools_of_flat/__init__.py": "",
        "laid/pyproject.toml": "",
        "laid/src/tools_of_laid.py": "",
        "faux_package/__init__.py": "",
        "uses.py": "import tools_of_flat, tools_of_laid, faux_package\n" + GRAPH,
    }

    registry = GraphRegistry.from_config(
        project(
            files,
            dependencies=["langchain_openai", ".", "./flat", "./laid", "./faux_package"],
            graphs={"g": "./uses.py:graph"},
        )
    )

    assert not registry.problems


def test_keys_without_effect_are_warned_of_by_name(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    GraphRegistry.from_config(
        project({"k.py": GRAPH}, graphs={"g": "./k.py:graph"}, auth={"path": "x"}, python_version="3.11", grpahs={})
    )

    warned = [record.getMessage() for record in caplog.records]
    assert [message for message in warned if '"auth"' in message]
    assert [message for message in warned if '"grpahs"' in message]
    assert not [message for message in warned if "python_version" in message]


def test_how_long_threads_are_kept_is_read_and_the_rest_of_the_checkpointer_is_warned_of(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    ttl = {"strategy": "keep_latest", "default_ttl": 43200, "sweep_interval_minutes": 10, "sweep_limit": 100}

    registry = GraphRegistry.from_config(
        project({"k.py": GRAPH}, graphs={"g": "./k.py:graph"}, checkpointer={"ttl": ttl, "backend": "mongo"})
    )

    assert registry.ttl == TtlConfig(default_minutes=43200, strategy="keep_latest", sweep_minutes=10)
    assert [r.getMessage() for r in caplog.records] == [
        'langgraph.json: key "checkpointer.backend" has no effect on this server'
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "JSON"),
        ("[]", "graphs"),
        ('{"graphs": {"g": "no colon"}}', "g"),
        ('{"graphs": {}, "dependencies": ["./absent"]}', "absent"),
        ('{"graphs": {}, "env": "absent.env"}', "absent.env"),
        ('{"graphs": {}, "env": 3}', "env"),
        ('{"graphs": {"g": {"path": "./a.py:g", "persistence": "mysql"}}}', "persistence"),
        ('{"graphs": {"g": {"path": "./a.py:g", "run_ahead": "far"}}}', "run_ahead"),
        ('{"graphs": {"g": {"path": "./a.py:g", "run_ahead": {"nodes": 0}}}}', "run_ahead"),
        ('{"graphs": {"g": {"path": "./a.py:g", "run_ahead": {"nodes": true}}}}', "run_ahead"),
        ('{"graphs": {"g": {"path": "./a.py:g", "run_ahead": {"seconds": 61}}}}', "run_ahead"),
        ('{"graphs": {"g": {"path": "./a.py:g", "run_ahead": {"hours": 1}}}}', "run_ahead"),
        ('{"graphs": {}, "checkpointer": 3}', "checkpointer"),
        ('{"graphs": {}, "checkpointer": {"ttl": 3}}', "checkpointer.ttl"),
        ('{"graphs": {}, "checkpointer": {"ttl": {"default_ttl": "long"}}}', "default_ttl"),
        ('{"graphs": {}, "checkpointer": {"ttl": {"sweep_interval_minutes": 0}}}', "sweep_interval_minutes"),
        ('{"graphs": {}, "checkpointer": {"ttl": {"strategy": "burn"}}}', "strategy"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "langgraph.json").write_text(text)

    with pytest.raises(Misconfigured, match=says):
        GraphRegistry.from_config(tmp_path / "langgraph.json")


def test_a_file_that_is_not_there_is_refused_with_the_variable_to_set(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="AGENTFARM_CONFIG"):
        GraphRegistry.from_config(tmp_path / "langgraph.json")


# --------------------------------------------------------------------------- what is known of a graph


class State(TypedDict, total=False):
    n: int


def sync_node(state: State) -> State:
    return {}


async def async_node(state: State) -> State:
    return {}


class BothWays:
    """As a tool node is: its sync half may be of no use."""

    def __init__(self) -> None:
        from langgraph._internal._runnable import RunnableCallable

        self.runnable = RunnableCallable(sync_node, async_node)


def with_node(node: Any) -> StateGraph[State]:
    builder = StateGraph(State)
    builder.add_node("a", node)
    builder.add_edge(START, "a")
    return builder


def with_branch(path: Any) -> StateGraph[State]:
    builder = with_node(sync_node)
    builder.add_conditional_edges("a", path, [END])
    return builder


async def async_path(state: State) -> str:
    return END


@pytest.mark.parametrize(
    ("graph", "is_async"),
    [
        (known.line, False),
        (known.diamond, False),
        (known.nested, False),
        (known.squares, False),
        (known.async_line, True),
        (with_node(async_node).compile(), True),
        (with_node(BothWays().runnable).compile(), True),
        (with_node(with_node(async_node).compile()).compile(), True),
        (with_branch(lambda state: END).compile(), False),
        (with_branch(async_path).compile(), True),
    ],
    ids=[
        "line",
        "diamond",
        "nested",
        "functional",
        "async line",
        "async",
        "both ways",
        "async subgraph",
        "branch",
        "async branch",
    ],
)
def test_a_graph_is_sync_only_if_every_part_of_it_is(graph: Any, is_async: bool) -> None:
    assert describe_graph("g", graph).is_async is is_async


def test_a_store_of_the_graph_s_own_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    graph = with_node(sync_node).compile(store=InMemoryStore())

    described = describe_graph("g", graph)

    assert described.graph.store is None
    assert graph.store is not None
    assert "g has a store" in caplog.text


def test_a_checkpointer_of_the_graph_s_own_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    graph = with_node(sync_node).compile(checkpointer=InMemorySaver())

    described = describe_graph("g", graph)

    assert described.graph.checkpointer is None
    assert graph.checkpointer is not None
    assert "g has a checkpointer" in caplog.text


def test_queues_are_those_that_nodes_name() -> None:
    builder = with_node(sync_node)
    builder.add_node("render", sync_node, metadata={"queue": "gpu"})
    builder.add_edge("a", "render")

    described = describe_graph("g", builder.compile())

    assert described.node_queues == {"render": "gpu"}
    assert GraphRegistry({"g": described}).queues() == {"gpu"}


def test_a_fingerprint_is_the_same_in_every_process_and_another_for_another_graph() -> None:
    code = (
        "from agentfarm.engine.graph_loading import describe_graph as d; from agentfarm.testing import graphs as k;"
        "print(*[d('g', g).fingerprint for g in (k.line, k.diamond, k.nested, k.squares)])"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(prints) == 1
    assert len(set(prints.pop().split())) == 4


def test_a_fingerprint_changes_with_the_shape_and_not_with_the_code() -> None:
    def other(state: State) -> State:
        return {"n": 2}

    renamed = StateGraph(State)
    renamed.add_node("b", sync_node)
    renamed.add_edge(START, "b")
    same, changed, plain = (
        describe_graph("g", builder.compile()).fingerprint
        for builder in (with_node(other), renamed, with_node(sync_node))
    )

    assert same == plain != changed
