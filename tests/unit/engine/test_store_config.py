"""`store` of langgraph.json: read as the ecosystem writes it, refused by name where it means nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from agentfarm.engine.graphs import GraphRegistry
from agentfarm.engine.store_config import StoreConfig
from agentfarm.errors import Misconfigured

EMBED = """
from langchain_core.embeddings import Embeddings

def plain(texts):
    return [[float(len(text)), 0.0] for text in texts]

async def slow(texts):
    return plain(texts)

class Model(Embeddings):
    def embed_documents(self, texts):
        return plain(texts)

    def embed_query(self, text):
        return plain([text])[0]

made = Model()
number = 5
"""

Load = Callable[..., StoreConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(store: Any) -> StoreConfig:
        (tmp_path / "embed.py").write_text(EMBED)
        (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {}, "store": store}))
        return GraphRegistry.from_config(tmp_path / "langgraph.json").store

    return read


def index(**fields: Any) -> dict[str, Any]:
    return {"index": {"embed": "./embed.py:plain", "dims": 2, **fields}}


def test_a_file_without_a_store_has_one_without_index_and_expiry(load: Load) -> None:
    for nothing in ({}, None, {"index": None, "ttl": None}):
        assert load(nothing) == StoreConfig()


@pytest.mark.parametrize("name", ["plain", "slow", "made"])
async def test_an_embedding_is_a_function_an_async_one_or_an_object(load: Load, name: str) -> None:
    found = load(index(embed=f"./embed.py:{name}")).index

    assert found is not None
    assert (found.dims, found.fields) == (2, (("$", []),))
    assert len((await found.embeddings.aembed_documents(["abc"]))[0]) == 2


@pytest.mark.parametrize("embed", ["provider:model-3", "bedrock:amazon.titan-embed-text-v2:0", "ollama:a/b:1.5"])
def test_an_embedding_may_be_a_providers_model(load: Load, monkeypatch: pytest.MonkeyPatch, embed: str) -> None:
    asked: list[str] = []

    def init_embeddings(model: str) -> Any:
        asked.append(model)
        return DeterministicFakeEmbedding(size=2)

    monkeypatch.setattr("langgraph.store.base.embed._get_init_embeddings", lambda: init_embeddings)

    assert load(index(embed=embed)).index is not None
    assert asked == [embed]


def test_fields_are_paths(load: Load) -> None:
    found = load(index(fields=["title", "parts[*].text"])).index

    assert found is not None
    assert [path for path, _ in found.fields] == ["title", "parts[*].text"]


def test_expiry_is_in_minutes(load: Load) -> None:
    ttl = {"default_ttl": 1.5, "refresh_on_read": False, "sweep_interval_minutes": 5}

    assert load({"ttl": ttl}).ttl == {"default_ttl": 1.5, "refresh_on_read": False}


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ([1], '"store" is an object'),
        ({"index": 1}, "store.index"),
        (index(dims=None), "dims"),
        (index(dims=0), "dims"),
        (index(dims="2"), "dims"),
        (index(embed=None), "embed"),
        (index(embed="plain"), "embed"),
        (index(embed="./embed.py:nothing"), "AttributeError"),
        (index(embed="./nothing.py:plain"), "FileNotFoundError"),
        (index(embed="./embed.py:number"), "TypeError"),
        (index(embed="no-such-provider:model"), "could not be loaded"),
        (index(fields="title"), "fields"),
        (index(fields=[1]), "fields"),
        ({"ttl": {"default_ttl": -1}}, "default_ttl"),
        ({"ttl": {"default_ttl": "5"}}, "default_ttl"),
        ({"ttl": {"refresh_on_read": "yes"}}, "refresh_on_read"),
    ],
)
def test_a_store_that_cannot_be_meant_stops_the_process(load: Load, store: Any, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        load(store)


def test_what_has_no_effect_is_warned_about(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    load({"path": "./mine.py:store", **index(distance_type="l2"), "ttl": {"omit_expired": False, "dflt": 1}})

    warned = "\n".join(record.getMessage() for record in caplog.records)
    for key in ("store.path", "store.index.distance_type", "store.ttl.omit_expired", "store.ttl.dflt"):
        assert key in warned
