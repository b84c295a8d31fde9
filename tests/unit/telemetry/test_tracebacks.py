"""A traceback says where and what kind; what was in a variable or a message is the tenant's."""

import pytest

from agentfarm.errors import NotFound, StoreUnavailable
from agentfarm.telemetry.tracebacks import render_traceback

SECRET = "the-prompt"


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except type(error) as found:
        return found


def test_it_names_types_and_places_without_messages() -> None:
    rendered = render_traceback(caught(ValueError(SECRET)))

    assert "ValueError" in rendered
    assert "test_tracebacks.py:" in rendered
    assert SECRET not in rendered


def test_it_tells_causes_first_to_last() -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise StoreUnavailable from error
    except StoreUnavailable as error:
        rendered = render_traceback(error)

    assert rendered.index("KeyError") < rendered.index("StoreUnavailable")
    assert SECRET not in rendered


def test_our_own_errors_are_told_in_words() -> None:
    assert "Thread not found." in render_traceback(NotFound(what="Thread"))


def test_a_group_tells_its_members() -> None:
    rendered = render_traceback(caught(ExceptionGroup(SECRET, [ValueError(SECRET), OSError(5, SECRET)])))

    assert "ValueError" in rendered
    assert "OSError (5)" in rendered
    assert SECRET not in rendered


def test_a_deep_recursion_stays_short() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as error:
        deeper()

    assert render_traceback(error.value).count("\n") < 60


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, other = ValueError(), TypeError()
    one.__cause__, other.__cause__ = other, one

    assert render_traceback(one).count("ValueError") == 1
