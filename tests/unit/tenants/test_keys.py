import subprocess
import sys
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentfarm.errors import StoreUnavailable
from agentfarm.ids import new_id
from agentfarm.tenancy import Tenant
from tenants.keys import CACHE_SECONDS, USED_SECONDS, FoundKey, KeyRing, hash_key, make_key, parse_key_id, verify_key

PEPPER = b"pepper"
DEMO = Tenant(id=new_id(), slug="demo")


@dataclass
class Table:
    """The keys of the database, and a clock that the test turns."""

    rows: dict[UUID, FoundKey] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    asked: int = 0
    used: list[UUID] = field(default_factory=list)
    now: float = 0.0

    def look_up(self, key_id: UUID) -> FoundKey | None:
        self.asked += 1
        return self.rows.get(key_id)

    def issue(self) -> str:
        new = make_key(PEPPER)
        self.rows[new.id] = FoundKey(hash=new.hash, tenant=DEMO)
        return new.text

    def ring(self, anonymous: str = "") -> KeyRing:
        return KeyRing(
            PEPPER,
            self.look_up,
            self.tenants.get,
            mark_used=self.used.append,
            anonymous=anonymous,
            clock=lambda: self.now,
        )


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_key_names_its_row_and_keeps_256_bits_of_secret() -> None:
    new = make_key(PEPPER)

    assert new.text.startswith(f"af_{new.id.hex}_")
    assert len(new.text.split("_", 2)[2]) == 43
    assert parse_key_id(new.text) == new.id
    assert new.prefix == f"af_{new.id.hex[:12]}"
    assert new.hash == hash_key(new.text, PEPPER)


def test_a_key_is_not_in_what_is_printed_of_it() -> None:
    new = make_key(PEPPER)
    secret = new.text.split("_", 2)[2]

    assert secret not in repr(new)
    assert new.hash.hex() not in repr(new)


@given(st.text(max_size=200))
def test_what_is_no_key_is_no_error(text: str) -> None:
    assert parse_key_id(text) is None or text.startswith("af_")


@pytest.mark.parametrize(
    "raw", ["", "af_", "af__x", "af_" + "0" * 32, "af_" + "g" * 32 + "_x", "sk_" + "0" * 32 + "_x"]
)
def test_what_only_looks_like_a_key_has_no_id(raw: str) -> None:
    assert parse_key_id(raw) is None


def test_whose_key_it_is(table: Table) -> None:
    assert table.ring().find(table.issue()) == DEMO


def test_the_right_id_with_another_secret_opens_nothing(table: Table) -> None:
    key = table.issue()

    assert table.ring().find(key[:-1] + ("A" if key[-1] != "A" else "B")) is None


def test_another_pepper_opens_nothing(table: Table) -> None:
    key = table.issue()

    assert KeyRing(b"other", table.look_up, table.tenants.get).find(key) is None


def test_a_key_without_a_row_is_hashed_all_the_same() -> None:
    assert not verify_key("af_x", None, PEPPER)
    assert not verify_key("af_x", bytes(32), PEPPER)


def test_a_revoked_key_is_dead_within_a_second(table: Table) -> None:
    ring, key = table.ring(), table.issue()
    assert ring.find(key) == DEMO

    table.rows.clear()
    table.now += 1.0

    assert ring.find(key) is None


def test_a_key_that_was_just_looked_up_is_not_looked_up_again(table: Table) -> None:
    ring, key = table.ring(), table.issue()

    for _ in range(100):
        assert ring.find(key) == DEMO

    assert table.asked == 1
    assert CACHE_SECONDS < 1.0


def test_guessing_ids_fills_a_bounded_memory(table: Table) -> None:
    ring = table.ring()

    for _ in range(5000):
        assert ring.find(make_key(PEPPER).text) is None

    assert len(ring._keys._answers) <= 4096


def test_use_is_told_once_a_minute_and_only_for_keys_that_open(table: Table) -> None:
    ring, key = table.ring(), table.issue()
    ring.find(key[:-4] + "AAAA")
    assert table.used == []

    ring.find(key)
    ring.find(key)
    table.now += USED_SECONDS
    ring.find(key)

    assert table.used == [parse_key_id(key)] * 2


def test_a_database_that_does_not_answer_is_not_a_wrong_key(table: Table) -> None:
    def down(_: UUID) -> FoundKey | None:
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        KeyRing(PEPPER, down, table.tenants.get).find(table.issue())


def test_there_is_an_anonymous_tenant_only_where_one_is_named(table: Table) -> None:
    table.tenants["demo"] = DEMO

    assert table.ring().anonymous() is None
    assert table.ring(anonymous="demo").anonymous() == DEMO
    assert table.ring(anonymous="gone").anonymous() is None


def test_keys_are_read_without_django() -> None:
    code = "import sys, tenants.keys; print('django' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
