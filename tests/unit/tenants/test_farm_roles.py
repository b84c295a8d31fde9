import re

import pytest

from tenants.management.commands.farm_roles import ROLES, render_roles


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
