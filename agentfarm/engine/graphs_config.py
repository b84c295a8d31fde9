"""langgraph.json: which graphs there are, what they need to be imported, and what of the file does not apply here.

Keys that build an image are for who builds one and are passed over; keys of the Agent Server that this server does not
act on are warned about by name, since passing them over in silence would change what the operator asked for.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values

from agentfarm.errors import Misconfigured
from agentfarm.run_options import RunChoices, read_choices

logger = logging.getLogger(__name__)

#: What we act on.
_READ = frozenset({"graphs", "dependencies", "env", "store", "checkpointer"})

#: For `langgraph build` and `langgraph up`: how an image is made.
_BUILD = frozenset(
    {
        "$schema",
        "api_version",
        "base_image",
        "dockerfile_lines",
        "image_distro",
        "internal_docker_tag",
        "keep_pkg_tools",
        "node_version",
        "pip_config_file",
        "pip_installer",
        "python_version",
        "source",
        "ui",
        "ui_config",
    }
)


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """One entry of `graphs`: where its variable is ("./agent/graph.py:graph" or "package.module:graph").

    lossy_state  values that cannot be kept between two nodes go on as plain data, with a warning in the run's record
    choices      how runs of its assistant are executed that do not say so themselves
    """

    path: str
    description: str | None = None
    lossy_state: bool = False
    choices: RunChoices = field(default_factory=RunChoices)


@dataclass(frozen=True, slots=True)
class TtlConfig:
    """`checkpointer.ttl`: for how long threads are kept that do not say so themselves.

    default_minutes  None: for ever
    sweep_minutes    between two looks for threads whose time is over
    """

    default_minutes: float | None = None
    strategy: Literal["delete", "keep_latest"] = "delete"
    sweep_minutes: float = 5.0


@dataclass(frozen=True, slots=True)
class GraphsConfig:
    """A langgraph.json, read.

    folder        where the file is: what its paths are relative to
    search_paths  folders of local dependencies, for sys.path
    store         its `store` as it stands: store_config.py reads it
    """

    folder: Path
    graphs: Mapping[str, GraphEntry]
    search_paths: tuple[Path, ...]
    env: Mapping[str, str]
    store: Any = field(default_factory=dict)
    ttl: TtlConfig = field(default_factory=TtlConfig)


def read_config(path: Path) -> GraphsConfig:
    """Touches nothing but the file and the env file that it names. Raises Misconfigured."""
    path = path.resolve()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Misconfigured(
            f"There is no {path}. Set AGENTFARM_CONFIG to your langgraph.json, or run where it is."
        ) from error
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("graphs"), dict):
        raise Misconfigured(f'{path} needs a key "graphs", for example {{"graphs": {{"agent": "./agent.py:graph"}}}}.')
    _warn_of(set(raw) - _READ - _BUILD, path)
    return GraphsConfig(
        folder=path.parent,
        graphs={graph_id: _entry(graph_id, entry, path) for graph_id, entry in raw["graphs"].items()},
        search_paths=_search_paths(raw.get("dependencies", ["."]), path),
        env=_env(raw.get("env") or {}, path),
        store=raw.get("store") or {},
        ttl=_ttl(raw.get("checkpointer") or {}, path),
    )


def prepare_process(config: GraphsConfig) -> None:
    """Make local dependencies importable and set `env`. What the environment says already stays as it is."""
    for folder in reversed(config.search_paths):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    for name, value in config.env.items():
        os.environ.setdefault(name, value)


def _warn_of(keys: set[str], path: Path) -> None:
    for key in sorted(keys):
        logger.warning('%s: key "%s" has no effect on this server', path.name, key)


def _entry(graph_id: str, entry: Any, path: Path) -> GraphEntry:
    said: dict[str, Any] = entry if isinstance(entry, dict) else {"path": entry}
    where, description, lossy_state = said.get("path"), said.get("description"), said.get("lossy_state", False)
    if not isinstance(where, str) or ":" not in where:
        raise Misconfigured(
            f'{path}: graph "{graph_id}" needs a path like "./agent.py:graph" or "package.module:graph".'
        )
    if not isinstance(lossy_state, bool):
        raise Misconfigured(f'{path}: "lossy_state" of graph "{graph_id}" is true or false.')
    try:
        choices = read_choices(said)
    except ValueError as error:
        raise Misconfigured(f'{path}: graph "{graph_id}": {error}.') from error
    return GraphEntry(where, description if isinstance(description, str) else None, lossy_state, choices)


def _search_paths(dependencies: Any, path: Path) -> tuple[Path, ...]:
    """Folders of the local ones. Packages named there are for pip to install, as in an image."""
    if not isinstance(dependencies, list):
        raise Misconfigured(f'{path}: "dependencies" is a list, for example ["."].')
    found: list[Path] = []
    for dependency in dependencies:
        if not isinstance(dependency, str) or not dependency.startswith("."):
            continue
        folder = (path.parent / dependency).resolve()
        if not folder.is_dir():
            raise Misconfigured(f'{path}: dependency "{dependency}" is not a folder beside it.')
        is_package = (folder / "__init__.py").exists() and not (folder / "pyproject.toml").exists()
        found += [
            folder,
            *([folder / "src"] if (folder / "src").is_dir() else []),
            *([folder.parent] if is_package else []),
        ]
    return tuple(dict.fromkeys(found))


def _ttl(checkpointer: Any, path: Path) -> TtlConfig:
    if not isinstance(checkpointer, dict):
        raise Misconfigured(f'{path}: "checkpointer" is an object, for example {{"ttl": {{"default_ttl": 43200}}}}.')
    _warn_of({f"checkpointer.{key}" for key in checkpointer if key != "ttl"}, path)
    ttl = checkpointer.get("ttl") or {}
    if not isinstance(ttl, dict):
        raise Misconfigured(f'{path}: "checkpointer.ttl" is an object, for example {{"default_ttl": 43200}}.')
    # sweep_limit: batches here are small and follow each other until nothing is due.
    _warn_of({f"checkpointer.ttl.{k}" for k in ttl if k not in _TTL_KEYS}, path)
    strategy = ttl.get("strategy", "delete")
    if strategy not in ("delete", "keep_latest"):
        raise Misconfigured(f'{path}: "checkpointer.ttl.strategy" is "delete" or "keep_latest".')
    for key in ("default_ttl", "sweep_interval_minutes"):
        minutes = ttl.get(key)
        if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes <= 0):
            raise Misconfigured(f'{path}: "checkpointer.ttl.{key}" is a number of minutes above 0.')
    return TtlConfig(ttl.get("default_ttl"), strategy, ttl.get("sweep_interval_minutes") or 5.0)


_TTL_KEYS = frozenset({"default_ttl", "sweep_interval_minutes", "strategy", "sweep_limit"})


def _env(env: Any, path: Path) -> Mapping[str, str]:
    if isinstance(env, str):
        file = path.parent / env
        if not file.is_file():
            raise Misconfigured(f'{path}: "env" names {env}, which is not there.')
        return {name: value for name, value in dotenv_values(file).items() if value is not None}
    if isinstance(env, dict):
        return {str(name): str(value) for name, value in env.items()}
    raise Misconfigured(f'{path}: "env" is an object of names and values, or the path of a file with them.')
