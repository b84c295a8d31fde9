"""`store` of langgraph.json: by what items are found in a semantic search, and how long they live.

    "store": {"index": {"embed": "./embed.py:embed", "dims": 3, "fields": ["text"]}, "ttl": {"default_ttl": 1440}}

`embed` is a function of texts, async or not, or a LangChain `Embeddings`, in a file or a module; or "provider:model".
"""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, TTLConfig, ensure_embeddings, tokenize_path

from agentfarm.engine.graph_loading import import_module
from agentfarm.engine.graphs_config import GraphsConfig
from agentfarm.errors import Misconfigured

logger = logging.getLogger(__name__)

#: Numbers of a vector. Providers go to a few thousand; it bounds what a row takes.
MAX_DIMS: Final = 16_000

_KEYS: Final = {
    "": frozenset({"index", "ttl"}),
    "index": frozenset({"embed", "dims", "fields"}),
    # sweep_interval_minutes: items that are over are seen by nobody, and the healer removes them as it goes.
    "ttl": frozenset({"default_ttl", "refresh_on_read", "sweep_interval_minutes", "omit_expired"}),
}


@dataclass(frozen=True, slots=True)
class StoreIndex:
    """How texts of items become vectors.

    fields  (path, its tokens): what of an item is embedded where a put does not say
    """

    embeddings: Embeddings
    dims: int
    fields: tuple[tuple[str, list[str]], ...]

    @classmethod
    def of(cls, config: IndexConfig) -> "StoreIndex":
        """Of an index as LangGraph's own stores take it. Raises ValueError, and what making the embeddings raises."""
        fields = config.get("fields") or ["$"]
        return cls(
            embeddings=ensure_embeddings(config["embed"]),
            dims=config["dims"],
            fields=tuple((path, tokens_of(path)) for path in fields),
        )


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """index  None: a search with a query is one without

    ttl  as LangGraph's `BaseStore.ttl_config`, in minutes
    """

    index: StoreIndex | None = None
    ttl: TTLConfig = field(default_factory=TTLConfig)


def tokens_of(path: str) -> list[str]:
    """As `get_text_at_path` takes them: none for "$", the whole item."""
    return tokenize_path(path) if path != "$" else []


def load_store(config: GraphsConfig) -> StoreConfig:
    """What the file says of the store. Local dependencies are on sys.path. Raises Misconfigured."""
    raw = _section(config.store, "store")
    _warn_of("store", raw, _KEYS[""])
    return StoreConfig(
        index=_index(_section(raw["index"], "store.index"), config) if raw.get("index") else None,
        ttl=_ttl(_section(raw["ttl"], "store.ttl")) if raw.get("ttl") else TTLConfig(),
    )


def _index(raw: Mapping[str, Any], config: GraphsConfig) -> StoreIndex:
    _warn_of("store.index", raw, _KEYS["index"])
    dims, embed, fields = raw.get("dims"), raw.get("embed"), raw.get("fields") or ["$"]
    if not isinstance(dims, int) or isinstance(dims, bool) or not 1 <= dims <= MAX_DIMS:
        raise Misconfigured(f'langgraph.json: "store.index.dims" is how many numbers a vector has, 1 to {MAX_DIMS}.')
    if not isinstance(embed, str) or ":" not in embed:
        raise Misconfigured(
            'langgraph.json: "store.index.embed" is "./file.py:function" or "provider:model", '
            'for example "openai:text-embedding-3-small".'
        )
    if not isinstance(fields, list) or not all(isinstance(path, str) and path for path in fields):
        raise Misconfigured('langgraph.json: "store.index.fields" is a list of paths, for example ["text"] or ["$"].')
    try:
        return StoreIndex.of({"embed": _embed(embed, config), "dims": dims, "fields": fields})
    except Misconfigured:
        raise
    except Exception as error:
        # What it says may hold a key: the log has the rest.
        logger.exception("the store's embeddings could not be made")
        raise Misconfigured(
            f'langgraph.json: "store.index.embed" {embed!r} could not be loaded: {type(error).__name__}, see the log. '
            "Without it nothing would be found by a search; mend it, or take the index out."
        ) from error


def _embed(embed: str, config: GraphsConfig) -> Any:
    where, _, name = embed.rpartition(":")
    if ":" in where or not ("/" in where or "." in where):
        return embed  # provider:model, which langchain knows; a model's own name may have colons
    found = functools.reduce(getattr, name.split("."), import_module(where, config))
    if not isinstance(found, Embeddings) and not callable(found):
        raise TypeError(f"{name} is a {type(found).__name__}, neither a function nor Embeddings")
    return found


def _ttl(raw: Mapping[str, Any]) -> TTLConfig:
    _warn_of("store.ttl", raw, _KEYS["ttl"])
    default, refresh = raw.get("default_ttl"), raw.get("refresh_on_read", True)
    if default is not None and (not isinstance(default, int | float) or isinstance(default, bool) or default <= 0):
        raise Misconfigured('langgraph.json: "store.ttl.default_ttl" is a number of minutes, more than 0.')
    if not isinstance(refresh, bool):
        raise Misconfigured('langgraph.json: "store.ttl.refresh_on_read" is true or false.')
    if raw.get("omit_expired") is False:
        logger.warning('langgraph.json: "store.ttl.omit_expired" has no effect: what is over is never shown')
    return TTLConfig(default_ttl=default, refresh_on_read=refresh)


def _section(raw: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise Misconfigured(f'langgraph.json: "{name}" is an object.')
    return raw


def _warn_of(name: str, raw: Mapping[str, Any], known: frozenset[str]) -> None:
    for key in sorted(set(raw) - known):
        logger.warning('langgraph.json: key "%s.%s" has no effect on this server', name, key)
