"""Every scenario of the corpus by its name, and for the farm's langgraph.json each one's graph as a variable here.

A module of corpus/ that has SCENARIOS belongs to it; nothing else is to be registered.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.contract.differential.scenario import Scenario


def _load() -> Mapping[str, Scenario]:
    found: dict[str, Scenario] = {}
    for path in sorted((Path(__file__).parent / "corpus").glob("*.py")):
        module = importlib.import_module(f"tests.contract.differential.corpus.{path.stem}")
        for one in getattr(module, "SCENARIOS", ()):
            if one.name in found:
                raise ValueError(f"two scenarios are called {one.name}")
            found[one.name] = one
    return found


SCENARIOS = _load()


def __getattr__(name: str) -> Any:
    if name in SCENARIOS:
        return SCENARIOS[name].graph
    raise AttributeError(f"there is no scenario {name}")
