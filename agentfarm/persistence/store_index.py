"""Semantic search: which texts of an item are embedded, and what their vectors are in Postgres.

Vectors are stored with length 1, so that the cosine of two is the sum of their products (farm.store_cosine). Exact:
each vector below the searched namespace is looked at.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

from langchain_core.embeddings import Embeddings
from langgraph.store.base import get_text_at_path

from agentfarm.engine.store_config import StoreIndex, tokens_of
from agentfarm.errors import InvalidInput, Misconfigured
from agentfarm.persistence.store_keys import field_text

#: Vectors of one item. Each is a call's worth of text to embed, and a row to compare at each search.
MAX_VECTORS: Final = 256

#: Paths that one put may name, each name in braces being one. Each may stand for all of a large item, as JSON.
MAX_PATHS: Final = 64

#: (field, text)
Texts = Sequence[tuple[str, str]]


def texts_of(index: StoreIndex, value: Mapping[str, Any], wanted: Literal[False] | Sequence[str] | None) -> Texts:
    """What to embed of an item, by field; a path with several texts counts them. Raises InvalidInput.

    wanted  as a put says: paths, False for none, None for the store's own
    """
    if wanted is False:
        return ()
    if isinstance(wanted, str) or (wanted is not None and not isinstance(wanted, list | tuple)):
        raise InvalidInput(where="index", why="is False or a list of paths, which are text")
    paths = index.fields if wanted is None else _paths(wanted)
    found: dict[str, str] = {}
    for path, tokens in paths:
        texts = get_text_at_path(dict(value), tokens)
        found |= {f"{path}.{n}" if len(texts) > 1 else path: text for n, text in enumerate(texts)}
    if len(found) > MAX_VECTORS:
        raise InvalidInput(where="index", why=f"finds {len(found)} texts in the item, and {MAX_VECTORS} are the most")
    return tuple(found.items())


def _paths(wanted: Sequence[str]) -> Sequence[tuple[str, list[str]]]:
    fields = dict.fromkeys(map(field_text, wanted))
    if sum(1 + field.count(",") for field in fields) > MAX_PATHS:
        raise InvalidInput(where="index", why=f"names more than {MAX_PATHS} paths")
    return [(field, tokens_of(field)) for field in fields]


def embed(embeddings: Embeddings, documents: Sequence[str], queries: Sequence[str]) -> list[list[float]]:
    """Vectors of the documents, then of the queries. No transaction is open meanwhile: it may ask a model far away."""
    if not hasattr(embeddings, "afunc"):
        found = embeddings.embed_documents(list(documents)) if documents else []
        return [*found, *map(embeddings.embed_query, queries)]
    # A function that is async alone, asked by a node that is not: a loop of its own, since this thread may have one.
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(asyncio.run, aembed(embeddings, documents, queries)).result()


async def aembed(embeddings: Embeddings, documents: Sequence[str], queries: Sequence[str]) -> list[list[float]]:
    """The same, on the running loop."""
    found = await embeddings.aembed_documents(list(documents)) if documents else []
    return [*found, *(await asyncio.gather(*map(embeddings.aembed_query, queries)))]


def vector_text(numbers: Sequence[float], dims: int) -> str:
    """A real[] as text, of length 1; zeros stay zeros, and are like nothing. Raises Misconfigured."""
    vector = [float(number) for number in numbers]
    length = math.sqrt(math.fsum(number * number for number in vector))
    if len(vector) != dims or not math.isfinite(length):
        raise Misconfigured(
            f"The store's index has {dims} dimensions, and its embedding answered with {len(vector)} numbers"
            f"{'' if math.isfinite(length) else ', not all finite'}. Let store.index of langgraph.json say what the "
            "model gives."
        )
    return "{" + ",".join(repr(number / length if length else 0.0) for number in vector) + "}"
