"""A batch of the store's operations: checked and encoded as a whole, embedded, then read and written.

Plain and sync: TenantStore (store.py) says when each part is done, with or without a loop.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    validate_op_namespace,
)
from sqlalchemy import Connection, Row, text

from agentfarm.engine.store_config import StoreIndex
from agentfarm.errors import InvalidInput
from agentfarm.persistence.store_filters import encode_filter
from agentfarm.persistence.store_index import Texts, texts_of, vector_text
from agentfarm.persistence.store_keys import (
    below,
    key_text,
    list_parameters,
    namespace_of,
    namespace_text,
    own_namespace_text,
    page,
)
from agentfarm.persistence.store_values import check_text, encode_value

#: Minutes: a thousand years, beyond which Postgres' times end sooner or later.
MAX_TTL_MINUTES: Final = 525_960_000.0

_LIVE: Final = "(i.expires_at IS NULL OR i.expires_at > clock_timestamp())"
_COLUMNS: Final = "i.namespace, i.key, i.value, i.created_at, i.updated_at, i.ttl_minutes"

_GET = text(
    f"""SELECT {_COLUMNS} FROM unnest(CAST(:namespaces AS text[]), CAST(:keys AS text[])) w(namespace, key)
         JOIN farm.store_item i ON i.tenant_id = farm.tenant() AND i.namespace = w.namespace AND i.key = w.key
        WHERE {_LIVE}"""  # noqa: S608  # texts of ours
)
_LIST = text("SELECT farm.store_namespaces(:below, CAST(:conditions AS jsonb), :depth, :limit, :offset)")
_REFRESH = text("SELECT farm.store_refresh(CAST(:namespaces AS text[]), CAST(:keys AS text[]))")
_PUT = text(
    "SELECT farm.store_put(CAST(:namespaces AS text[]), CAST(:keys AS text[]), CAST(:values AS text[]),"
    " CAST(:ttls AS float8[]), CAST(:of AS int[]), CAST(:fields AS text[]), CAST(:vectors AS text[]))"
)

#: Found by filter alone: what was changed last comes first.
_SEARCH: Final = """SELECT {columns}, NULL AS score FROM farm.store_item i
    WHERE i.tenant_id = farm.tenant() AND {below} AND {live} AND {passes}
    ORDER BY i.updated_at DESC, i.namespace, i.key LIMIT :limit OFFSET :offset"""

#: Found by likeness: of an item with several vectors the nearest counts, and one with none is not found.
_SEARCH_LIKE: Final = """WITH best AS (
      SELECT i.tenant_id, i.namespace, i.key, i.updated_at,
             max(farm.store_cosine(s.vector, CAST(:vector AS real[]))) AS score
        FROM farm.store_item i JOIN farm.store_vector s USING (tenant_id, namespace, key)
       WHERE i.tenant_id = farm.tenant() AND {below} AND {live} AND {passes} AND cardinality(s.vector) = :dims
       GROUP BY i.tenant_id, i.namespace, i.key
       ORDER BY score DESC, i.updated_at DESC, i.namespace, i.key LIMIT :limit OFFSET :offset)
    SELECT {columns}, b.score FROM best b JOIN farm.store_item i USING (tenant_id, namespace, key)
    ORDER BY b.score DESC, i.updated_at DESC, i.namespace, i.key"""


@dataclass(slots=True)
class _Put:
    """value  JSON; None: a delete"""

    namespace: str
    key: str
    value: str | None
    ttl: float | None
    texts: Texts = ()


@dataclass(slots=True)
class _Search:
    parameters: dict[str, Any]
    below: str
    query: str | None
    refresh: bool
    vector: str | None = None


@dataclass(slots=True)
class _Touched:
    """Items that were read, whose time begins anew."""

    keys: dict[tuple[str, str], None] = field(default_factory=dict)

    def add(self, row: Row[Any], *, refresh: bool) -> None:
        if refresh and row.ttl_minutes is not None:
            self.keys[row.namespace, row.key] = None


class Batch:
    """What the operations ask for. `results` are in their order, once all is done.

    raises  InvalidNamespaceError, InvalidInput, TooLarge: of the whole batch nothing is done
    """

    def __init__(self, ops: Iterable[Op], index: StoreIndex | None, *, max_value_bytes: int) -> None:
        listed = list(ops)
        for op in listed:
            validate_op_namespace(op)
        self.index = index
        self.max_value_bytes = max_value_bytes
        self.results: list[Result] = [None] * len(listed)
        self._gets: dict[int, tuple[str, str, bool]] = {}
        self._searches: dict[int, _Search] = {}
        self._lists: dict[int, Mapping[str, Any]] = {}
        self._puts: dict[tuple[str, str], _Put] = {}
        self._vectors: list[str] = []
        for place, op in enumerate(listed):
            self._add(place, op)

    def _add(self, place: int, op: Op) -> None:
        if isinstance(op, GetOp):
            self._gets[place] = (namespace_text(op.namespace), key_text(op.key), op.refresh_ttl)
        elif isinstance(op, SearchOp):
            self._searches[place] = self._search(op)
        elif isinstance(op, ListNamespacesOp):
            self._lists[place] = list_parameters(op)
        elif isinstance(op, PutOp):
            put = self._put(op)
            self._puts.pop((put.namespace, put.key), None)  # the last one counts
            self._puts[put.namespace, put.key] = put
        else:
            raise TypeError(f"{type(op).__name__} is no operation of a store")

    def _put(self, op: PutOp) -> _Put:
        namespace, key = own_namespace_text(op.namespace), key_text(op.key)
        if op.value is None:
            return _Put(namespace, key, None, None)
        value = encode_value(op.value, max_bytes=self.max_value_bytes)
        texts = texts_of(self.index, orjson.loads(value), op.index) if self.index else ()
        return _Put(namespace, key, value, _ttl(op.ttl), texts)

    def _search(self, op: SearchOp) -> _Search:
        condition, places = below(namespace_text(op.namespace_prefix))
        parameters = {**places, **page(op.limit, op.offset), "filter": encode_filter(op.filter)}
        query = check_text(op.query, "query") if op.query and self.index else None
        return _Search(parameters, condition, query, op.refresh_ttl)

    # ----------------------------------------------------------------------- embedding

    @property
    def documents(self) -> list[str]:
        return [document for put in self._puts.values() for _, document in put.texts]

    @property
    def queries(self) -> list[str]:
        return [search.query for search in self._searches.values() if search.query]

    @property
    def needs_vectors(self) -> bool:
        return bool(self.documents or self.queries)

    def take_vectors(self, vectors: Sequence[Sequence[float]]) -> None:
        """Of `documents`, then of `queries`. Raises Misconfigured for what the index cannot hold."""
        if self.index is None:
            return
        texts = [vector_text(vector, self.index.dims) for vector in vectors]
        documents = len(self.documents)
        self._vectors = texts[:documents]
        asking = [search for search in self._searches.values() if search.query]
        for search, vector in zip(asking, texts[documents:], strict=True):
            search.vector = vector

    # ----------------------------------------------------------------------- reading

    @property
    def reads(self) -> bool:
        return bool(self._gets or self._searches or self._lists)

    def read(self, connection: Connection) -> None:
        touched = _Touched()
        self._do_gets(connection, touched)
        for place, search in self._searches.items():
            self.results[place] = self._do_search(connection, search, touched)
        for place, parameters in self._lists.items():
            self.results[place] = [tuple(labels) for labels in connection.execute(_LIST, parameters).scalars()]
        if touched.keys:
            connection.execute(_REFRESH, _places(touched.keys))

    def _do_gets(self, connection: Connection, touched: _Touched) -> None:
        if not self._gets:
            return
        wanted = dict.fromkeys((namespace, key) for namespace, key, _ in self._gets.values())
        found = {(row.namespace, row.key): row for row in connection.execute(_GET, _places(wanted))}
        for place, (namespace, key, refresh) in self._gets.items():
            if row := found.get((namespace, key)):
                touched.add(row, refresh=refresh)
                self.results[place] = _item(row)

    def _do_search(self, connection: Connection, search: _Search, touched: _Touched) -> list[SearchItem]:
        passes = "true" if search.parameters["filter"] is None else "farm.store_passes(i.value, CAST(:filter AS jsonb))"
        parts = {"columns": _COLUMNS, "below": search.below, "live": _LIVE, "passes": passes}
        statement = _SEARCH if search.vector is None else _SEARCH_LIKE
        likeness = {} if self.index is None else {"vector": search.vector, "dims": self.index.dims}
        rows = connection.execute(text(statement.format(**parts)), {**search.parameters, **likeness}).all()
        for row in rows:
            touched.add(row, refresh=search.refresh)
        return [_search_item(row) for row in rows]

    # ----------------------------------------------------------------------- writing

    @property
    def writes(self) -> bool:
        return bool(self._puts)

    def write(self, connection: Connection) -> None:
        puts = list(self._puts.values())
        owners = [(n, name) for n, put in enumerate(puts, start=1) for name, _ in put.texts]
        parameters = {
            **_places(self._puts),
            "values": [put.value for put in puts],
            "ttls": [put.ttl for put in puts],
            "of": [n for n, _ in owners],
            "fields": [name for _, name in owners],
            "vectors": self._vectors,
        }
        connection.execute(_PUT, parameters)


def _places(keys: Iterable[tuple[str, str]]) -> dict[str, Any]:
    both = list(keys)
    return {"namespaces": [namespace for namespace, _ in both], "keys": [key for _, key in both]}


def _ttl(minutes: object) -> float | None:
    if minutes is None:
        return None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not math.isfinite(minutes):
        raise InvalidInput(where="ttl", why="is a number of minutes, or None")
    if not 0 <= minutes <= MAX_TTL_MINUTES:
        raise InvalidInput(where="ttl", why="is 0 or more minutes, and a thousand years at most")
    return float(minutes)


def _item(row: Row[Any]) -> Item:
    return Item(
        value=row.value,
        key=row.key,
        namespace=namespace_of(row.namespace),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _search_item(row: Row[Any]) -> SearchItem:
    return SearchItem(namespace_of(row.namespace), row.key, row.value, row.created_at, row.updated_at, row.score)
