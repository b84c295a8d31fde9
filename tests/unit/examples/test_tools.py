"""The agent's tools and the library below them, each with known answers."""

import time

import pytest
from langchain_core.tools import ToolException

from examples import library
from examples.agent.tools import calculate, count_words, evaluate, search_library


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("(3 + 4) * 12", "84"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3", "0.333333333333"),
        ("7 // 2", "3"),
        ("-7 % 3", "2"),
        ("2 ** 100", "1267650600228229401496703205376"),
        ("2 ** -2", "0.25"),
    ],
)
def test_arithmetic_is_exact(expression: str, answer: str) -> None:
    assert calculate.invoke({"expression": expression}) == f"{expression} = {answer}"


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "a + 1",
        "[1]",
        "(1).real",
        "True + 1",
        "'a' * 3",
        "1 if 2 else 3",
        "1e999999999",
        "9" * 201,
        "2 +",
        "",
    ],
)
def test_what_is_not_arithmetic_is_refused(expression: str) -> None:
    with pytest.raises(ToolException):
        evaluate(expression)


@pytest.mark.parametrize(
    "expression", ["9**9**9", "2 ** 100000", "(2 ** 4000) * (2 ** 4000)", "2 ** 0.5", "0 ** -1", "5 % 0"]
)
def test_what_would_grow_too_large_or_has_no_exact_value_is_refused_at_once(expression: str) -> None:
    began = time.process_time()

    with pytest.raises(ToolException):
        evaluate(expression)

    assert time.process_time() - began < 1


def test_words_are_counted_by_title_however_it_is_spelled() -> None:
    assert count_words.invoke({"title": "the gettysburg address"}) == "The Gettysburg Address has 271 words."
    assert count_words.invoke({"title": "Bill of Rights", "word": "People"}).endswith("'People' occurs 5 times.")


def test_an_unknown_text_is_answered_with_the_texts_there_are() -> None:
    with pytest.raises(library.NoSuchText, match=r"It has: Bill of Rights, Declaration of Independence, Gettysburg"):
        library.get_text("Moby Dick")


def test_search_finds_the_section_that_holds_the_rare_words() -> None:
    assert [section.source for section in library.search("unreasonable searches")] == ["Bill of Rights, Amendment IV"]
    assert search_library.invoke({"query": "score and seven"}).startswith("Gettysburg Address, The past: Four score")
    assert library.search("zebra") == []


def test_the_texts_are_whole() -> None:
    sizes = {text.title: (len(text.sections), len(library.words(text.text))) for text in library.texts()}

    assert sizes == {
        "Bill of Rights": (10, 462),
        "Declaration of Independence": (8, 1321),
        "Gettysburg Address": (3, 271),
    }
