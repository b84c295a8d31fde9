"""The locked files say the same, hold every file to its hash, and name no index."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / name).read_text(encoding="utf-8")))


def test_tests_run_on_the_versions_that_are_shipped() -> None:
    shipped, tested = pins("requirements.txt"), pins("requirements-dev.txt")

    assert len(shipped) > 50
    assert {name: tested.get(name) for name in shipped} == shipped


def test_what_sqs_needs_is_added_to_what_is_shipped_and_changes_none_of_it() -> None:
    shipped, with_sqs, tested = pins("requirements.txt"), pins("requirements-sqs.txt"), pins("requirements-dev.txt")

    assert {"boto3", "pycurl"} <= with_sqs.keys() - shipped.keys()
    assert {name: with_sqs.get(name) for name in shipped} == shipped
    assert {name: tested.get(name) for name in with_sqs} == with_sqs


def test_every_package_is_held_to_hashes_and_no_index_is_named() -> None:
    for name in ("requirements.txt", "requirements-sqs.txt", "requirements-dev.txt", "requirements-agents.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        entries = re.split(r"\n(?=\S)", text)

        assert [entry.split()[0] for entry in entries if PIN.match(entry) and "--hash=sha256:" not in entry] == []
        assert "index-url" not in text
        assert "://" not in text


def test_the_readme_names_the_versions_that_are_tested() -> None:
    told = (ROOT / "README.md").read_text(encoding="utf-8").partition("What is tested: ")[2].partition("\n\n")[0]
    tested = {**pins("requirements-dev.txt"), **pins("requirements-agents.txt")}
    named = {name.lower(): version for name, version in re.findall(r"([\w-]+) (\d+(?:\.\d+)+)", told)}

    assert len(named) == 5
    assert named == {name: tested[name] for name in named}


def test_each_wanted_package_is_locked() -> None:
    wanted = re.findall(r"^([A-Za-z0-9._-]+)", (ROOT / "requirements.in").read_text(encoding="utf-8"), re.MULTILINE)

    assert {name.lower() for name in wanted} <= {name.lower() for name in pins("requirements.txt")}
