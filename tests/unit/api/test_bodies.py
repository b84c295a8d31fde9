"""The one parser: what it lets through, and what it refuses before anything behind it could choke on it."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentfarm.api.bodies import MAX_INTEGER, MIN_INTEGER, parse_json
from agentfarm.errors import AgentFarmError, BadRequest, InvalidInput

DEPTH = 100


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        (b'"\\\\u0000"', "\\u0000"),  # a backslash and letters, no NUL
        (b'"\xf0\x9f\x90\xb8 \\ud83d\\udc38"', "🐸 🐸"),
        (b'"[[[[[' + b"[" * 500 + b'"', "[[[[[" + "[" * 500),
        (b'"\\"' + b"[" * 500 + b'"', '"' + "[" * 500),
        (str(MAX_INTEGER).encode(), MAX_INTEGER),
        (str(MIN_INTEGER).encode(), MIN_INTEGER),
        (b"1234567890123456789012.5", 1.2345678901234568e21),
        (b'{"id": "123456789012345678901234567890"}', {"id": "123456789012345678901234567890"}),
        (nested(DEPTH), None),
        (b"[" + b"[]," * 5000 + b"[]]", None),
    ],
    ids=range(11),
)
def test_what_can_be_stored_passes_unchanged(raw: bytes, value: Any) -> None:
    parsed = parse_json(raw, max_depth=DEPTH)

    assert parsed == (json.loads(raw) if value is None else value)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", BadRequest),
        (b"{", BadRequest),
        (b"{'a': 1}", BadRequest),
        (b"[1,]", BadRequest),
        (b'{"a": NaN}', BadRequest),
        (b"[Infinity]", BadRequest),
        (b"[-1e999]", BadRequest),
        (b"[" + b"9" * 100_000 + b"]", BadRequest),
        (b'"\\ud800"', BadRequest),
        (b'"\\udc00\\ud800"', BadRequest),
        (b'"\xff\xfe"', BadRequest),
        (b'"a\x00b"', BadRequest),
        (b'{"a": "b\\u0000"}', InvalidInput),
        (b'{"a\\u0000": 1}', InvalidInput),
        (b'[[["\\\\", {"a": ["\\u0000"]}]]]', InvalidInput),
        (str(MAX_INTEGER + 1).encode(), InvalidInput),
        (b"[" + str(MIN_INTEGER - 1).encode() + b"]", InvalidInput),
        (b"[" + b"9" * 300 + b"]", InvalidInput),
        (nested(DEPTH + 1), InvalidInput),
        (b"[" * 2000, InvalidInput),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, InvalidInput),
        (b"[" * 1_000_000, InvalidInput),
    ],
    ids=range(22),
)
def test_what_cannot_be_stored_is_refused(raw: bytes, error: type[AgentFarmError]) -> None:
    with pytest.raises(error) as refused:
        parse_json(raw, max_depth=DEPTH)

    assert type(refused.value) is error


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    for raw in (b'{"secret-prompt": }', b'{"secret-prompt": "\\u0000"}'):
        with pytest.raises(AgentFarmError) as refused:
            parse_json(raw, max_depth=DEPTH)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "raw", [b"[" * 4_000_000, b'"' + b"\\" * 8_000_000, b'["' * 2_000_000, b"9" * 8_000_000], ids=range(4)
)
def test_a_hostile_body_is_refused_in_linear_time(raw: bytes) -> None:
    began = time.monotonic()

    with pytest.raises(AgentFarmError):
        parse_json(raw, max_depth=DEPTH)

    assert time.monotonic() - began < 20


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(MIN_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), inner)
    ),
    max_leaves=30,
)


@settings(deadline=None)  # the machine may be busy
@given(json_values, st.booleans())
def test_every_ordinary_value_comes_back_as_json_reads_it(value: Any, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()

    assert parse_json(raw, max_depth=DEPTH) == json.loads(raw)


@settings(deadline=None)  # the machine may be busy
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_nul_is_found_wherever_it_hides(text: str) -> None:
    raw = json.dumps({"a": [text + "\x00" + text]}).encode()

    with pytest.raises(InvalidInput):
        parse_json(raw, max_depth=DEPTH)
