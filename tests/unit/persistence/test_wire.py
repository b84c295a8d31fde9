"""Postgres' binary format by hand: what is put is what is got."""

import pytest

from agentfarm.persistence import wire

OID = wire.OIDS["bytea"]


@pytest.mark.parametrize("items", [[], [b""], [b"a", b"bc"], [b"a", None, b"c"], [b"x" * 100_000] * 3])
def test_an_array_comes_back_as_it_was(items: list[bytes | None]) -> None:
    assert wire.get_array(wire.put_array(OID, items)) == items


def test_no_array_is_an_empty_one() -> None:
    assert wire.get_array(None) == []


def test_a_statement_knows_the_types_of_its_parameters() -> None:
    claim = wire.function("claim", "uuid int8 text[]")

    assert claim.sql == "SELECT * FROM farm.claim($1, $2, $3)"
    assert claim.oids == (2950, 20, 1009)
    assert wire.procedure("settle", "uuid", answers=2).sql == "CALL farm.settle($1, NULL, NULL)"


def test_a_type_that_is_not_known_is_refused_when_the_statement_is_written() -> None:
    with pytest.raises(KeyError):
        wire.function("claim", "money")


def test_seconds_are_an_interval_in_microseconds() -> None:
    assert wire.put_seconds(1.5) == (1_500_000).to_bytes(8) + bytes(8)
