import stat
from pathlib import Path

import pytest

from agentfarm.errors import Misconfigured
from tenants.secrets_file import Secrets, read_secrets, write_secrets


def test_what_is_kept_comes_back_and_is_its_owners_alone(tmp_path: Path) -> None:
    path, kept = tmp_path / "new" / "secrets.json", Secrets({"demo": "af_1_2"}, "password")

    write_secrets(path, kept)
    write_secrets(path, kept)

    assert read_secrets(path) == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_not_there_keeps_nothing(tmp_path: Path) -> None:
    assert read_secrets(tmp_path / "none") == Secrets()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": 1, "admin_password": null}'])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(text)

    with pytest.raises(Misconfigured, match="not a file that farm_setup wrote"):
        read_secrets(path)


def test_secrets_are_not_in_what_is_printed_of_them() -> None:
    assert repr(Secrets({"demo": "af_1_2"}, "password")) == "Secrets()"
