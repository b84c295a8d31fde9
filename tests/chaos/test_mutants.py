"""A mutant whose guard was moved is no mutant any more, and one that fails for another reason is not caught."""

from pathlib import Path

import pytest

from tests.chaos.mutants import MUTANTS, FailingTest, Storm, Swap
from tests.chaos.plan import every_kind
from tests.farm import ROOT


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_has_something_to_take_out(name: str) -> None:
    for swap in MUTANTS[name].swaps:
        assert (ROOT / swap.file).read_text(encoding="utf-8").count(swap.text) == swap.times, swap.file
        assert swap.instead != swap.text


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_names_a_test_or_faults_that_there_are(name: str) -> None:
    how = MUTANTS[name].caught_by
    if isinstance(how, Storm):
        assert set(how.only) <= set(every_kind())
    else:
        file, _, test = how.name.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


def test_a_text_that_is_not_there_is_no_mutant(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("fence")

    with pytest.raises(LookupError, match="mend the mutant"):
        Swap("one.py", "lock", "").apply(tmp_path)


def test_a_test_that_does_not_run_is_no_catch() -> None:
    test = FailingTest("tests/one.py::test_a_thing", shows="assert 1 == 2")

    assert test.catch("E   assert 1 == 2\nFAILED tests/one.py::test_a_thing - assert 1 == 2\n")
    assert not test.catch("E   assert 1 == 2\nERROR tests/one.py::test_a_thing - no server\n")
    assert not test.catch("E   OSError\nFAILED tests/one.py::test_a_thing - OSError\n")


def test_a_storm_in_which_something_else_breaks_is_no_catch() -> None:
    storm = Storm(["kill worker"], breaks=["P2"])

    assert storm.catch("## Broken promises\n\n- plan: never happened\n- P2: begun 2 times (run 1)\n")
    assert not storm.catch("## Broken promises\n\n- plan: never happened\n- P1: is running\n")
    assert not storm.catch("- P2: a farm that did not start")
