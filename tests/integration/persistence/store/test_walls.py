"""Two tenants in one store."""

import pytest
from langgraph.store.base import (
    InvalidNamespaceError,
)

from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.store.parts import NS, by_letters, keys, stores


def test_tenants_share_names_and_nothing_else(home: Home, acme: Tenant, globex: Tenant) -> None:
    both = stores(home, by_letters())
    ours, theirs = both.of(acme), both.of(globex)
    ours.put(NS, "k", {"of": "acme", "text": "aaa"})
    theirs.put(NS, "k", {"of": "globex", "text": "aaa"})
    theirs.put(("theirs",), "alone", {"text": "aaa"})

    for of, store in (("acme", ours), ("globex", theirs)):
        item = store.get(NS, "k")
        assert item is not None
        assert item.value["of"] == of
    assert ours.get(("theirs",), "alone") is None
    assert [item.value["of"] for item in ours.search(())] == ["acme"]
    assert [item.value["of"] for item in ours.search((), query="aaa")] == ["acme"]
    assert ours.search((), filter={"of": "globex"}) == []
    assert ours.list_namespaces() == [NS]
    ours.delete(("theirs",), "alone")
    ours.delete(NS, "k")
    assert keys(theirs.search(())) == ["alone", "k"]


@pytest.mark.parametrize("label", ["*", "%", "_", "..", "' OR true --", "alice' --"])
def test_no_label_reaches_beyond_its_tenant(home: Home, acme: Tenant, globex: Tenant, label: str) -> None:
    stores(home).of(globex).put(NS, "k", {"n": 1})
    store = stores(home).of(acme)

    for ask in (
        lambda: store.search((label,)),
        lambda: store.list_namespaces(prefix=(label,)),
        lambda: store.list_namespaces(suffix=(label,)),
        lambda: store.search((), filter={label: {"$ne": label}}),
    ):
        try:
            assert ask() == []
        except InvalidNamespaceError:
            assert "." in label
