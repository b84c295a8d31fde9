"""Several operations at once: in one batch, from several clients, and by the async calls."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    ListNamespacesOp,
    Op,
    PutOp,
    SearchOp,
)

from agentfarm.persistence.store import TenantStore
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home, wait_for
from tests.integration.persistence.store.parts import NS, by_letters, keys, letters, stores


def test_a_batch_reads_what_was_there_before_it_and_its_last_put_counts(store: TenantStore) -> None:
    store.put(NS, "k", {"n": 0})
    ops: list[Op] = [
        PutOp(NS, "k", {"n": 1}),
        GetOp(NS, "k"),
        PutOp(NS, "new", {"n": 1}),
        PutOp(NS, "k", None),
        SearchOp(NS),
        PutOp(NS, "k", {"n": 2}),
        ListNamespacesOp(),
        PutOp(NS, "new", None),
        GetOp(NS, "k"),
    ]

    results: list[Any] = store.batch(ops)

    assert [results[n] for n in (0, 2, 3, 5, 7)] == [None] * 5
    assert results[1].value == results[8].value == {"n": 0}
    assert keys(results[4]) == ["k"]
    assert results[6] == [NS]
    assert [(item.key, item.value) for item in store.search(())] == [("k", {"n": 2})]


async def test_the_async_way_does_the_same(store: TenantStore) -> None:
    await store.aput(NS, "k", {"n": 1})
    item = await store.aget(NS, "k")

    assert item == store.get(NS, "k")
    assert item is not None
    assert await store.asearch(("users",)) == store.search(("users",))
    assert await store.alist_namespaces() == [NS]
    await store.adelete(NS, "k")
    assert await store.aget(NS, "k") is None


def test_puts_of_one_key_at_the_same_time_leave_one_of_them_whole(home: Home, acme: Tenant) -> None:
    """Batches that name the same keys in opposite orders, as many at once as there are connections."""
    store = stores(home, by_letters()).of(acme)
    names = [f"k{n}" for n in range(10)]

    def put(n: int) -> None:
        order = names if n % 2 else names[::-1]
        ops: list[Op] = [PutOp(NS, key, {"by": n, "text": "abcdefgh"[n % 8] * 3}) for key in order]
        store.batch([*ops, GetOp(NS, order[0]), *([PutOp(NS, order[5], None)] if n % 3 == 0 else [])])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(48)))

    rows = home.query(
        "SELECT i.key, i.value ->> 'text', s.vector FROM farm.store_item i"
        " LEFT JOIN farm.store_vector s USING (tenant_id, namespace, key)"
    )
    assert {row[0] for row in rows} >= set(names) - {"k4", "k5"}
    for key, text, vector in rows:
        assert vector == pytest.approx(letters([text])[0]), key  # of the same put as the value


def test_a_delete_that_came_first_leaves_the_vectors_of_a_put_that_came_then(home: Home, acme: Tenant) -> None:
    """Vectors are locked while the delete is between the item, which is not there yet, and its vectors."""
    store = stores(home, by_letters()).of(acme)
    with home.connect() as root, ThreadPoolExecutor(1) as pool:
        root.execute("BEGIN; LOCK TABLE farm.store_vector IN EXCLUSIVE MODE")
        deleted = pool.submit(store.delete, NS, "k")
        waits = """SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
                    WHERE l.relation = 'farm.store_vector'::regclass AND NOT l.granted"""
        wait_for(lambda: deleted.done() or home.query(waits), what="the delete to be at the vectors")
        place = (acme.id, ".".join(NS))
        root.execute(
            "INSERT INTO farm.store_item (tenant_id, namespace, key, value, value_bytes) VALUES (%s, %s, 'k', '{}', 2)",
            place,
        )
        root.execute("INSERT INTO farm.store_vector VALUES (%s, %s, 'k', 'text', '{1,0,0,0,0,0,0,0}')", place)
        root.execute("COMMIT")
        deleted.result()

    assert keys(store.search(NS, query="a")) == ["k"]
