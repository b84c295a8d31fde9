"""Stores as these tests make them, and an embedding without a model."""

from typing import Any

from agentfarm.engine.store_config import StoreConfig, StoreIndex
from agentfarm.persistence.database import Databases
from agentfarm.persistence.store import PostgresStores
from tests.integration.persistence.postgres import Home

MAX_VALUE_BYTES = 10_000

NS = ("users", "alice")


def stores(home: Home, config: StoreConfig | None = None) -> PostgresStores:
    return PostgresStores(Databases(home.app), config or StoreConfig(), max_value_bytes=MAX_VALUE_BYTES)


def keys(found: Any) -> list[str]:
    return [item.key for item in found]


def letters(texts: list[str]) -> list[list[float]]:
    """How much of a text each of the first letters is: what is alike has the same letters."""
    vectors = [[float(text.count(letter)) for letter in "abcdefgh"] for text in texts]
    lengths = [sum(number**2 for number in vector) ** 0.5 for vector in vectors]
    return [[n / length if length else 0.0 for n in v] for v, length in zip(vectors, lengths, strict=True)]


def by_letters(*fields: str, embed: Any = letters) -> StoreConfig:
    return StoreConfig(StoreIndex.of({"embed": embed, "dims": 8, "fields": list(fields) or ["text"]}))
