import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tenants.management.commands.farm_roles import ROLES, render_roles

PROJECT = Path(__file__).resolve().parents[3]


def test_no_role_may_pass_the_walls() -> None:
    script = render_roles("agentfarm", "localhost:5432", None)

    made = re.findall(r"CREATE ROLE (\w+) (.*?) PASSWORD", script)
    assert {role for role, _ in made} == set(ROLES)
    for _, attributes in made:
        assert {"NOSUPERUSER", "NOBYPASSRLS", "NOCREATEROLE"} <= set(attributes.split())


def test_without_passwords_psql_is_asked_for_them() -> None:
    script = render_roles("agentfarm", "localhost:5432", None)

    assert "PASSWORD :'farm_app_password'" in script


@pytest.mark.parametrize("role", ROLES)
def test_with_passwords_each_url_opens_its_role(role: str) -> None:
    passwords = {each: f"secret-of-{each}" for each in ROLES}

    script = render_roles("farm", "db.example:6432", passwords)

    assert f"PASSWORD '{passwords[role]}'" in script
    assert f"=postgresql://{role}:{passwords[role]}@db.example:6432/farm" in script


def test_it_comes_before_any_setting() -> None:
    """The passwords that the settings will hold are made by it."""
    bare = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "manage.py", "farm_roles", "--generate", "--database", "farm_2"]

    done = subprocess.run(command, cwd=PROJECT, env=bare, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "CREATE DATABASE farm_2" in done.stdout


def test_what_other_commands_lack_is_said_without_a_traceback() -> None:
    bare = {"PATH": os.environ["PATH"]}

    done = subprocess.run(
        [sys.executable, "manage.py", "migrate"], cwd=PROJECT, env=bare, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "DATABASE_URL is not set." in done.stderr
    assert "Traceback" not in done.stderr
