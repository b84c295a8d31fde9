"""Grants, row-level security, and the functions by which the app role looks a key up: tenants/sql/."""

from pathlib import Path
from typing import ClassVar

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

SQL = Path(__file__).parent.parent / "sql"


def run(name: str) -> migrations.RunPython:
    """The whole file as one script; it may be run again."""

    def forwards(_: Apps, editor: BaseDatabaseSchemaEditor) -> None:
        editor.execute((SQL / name).read_text(encoding="utf-8"), params=None)

    return migrations.RunPython(forwards, migrations.RunPython.noop)


class Migration(migrations.Migration):
    # What is there is granted; what comes later has the default privileges. Schema `farm` and the roles are
    # persistence's.
    dependencies: ClassVar = [
        ("tenants", "0001_initial"),
        ("persistence", "__first__"),
        ("admin", "__first__"),
        ("auth", "__first__"),
        ("contenttypes", "__first__"),
        ("sessions", "__first__"),
    ]

    operations: ClassVar = [run("walls.sql"), run("keys.sql"), run("sizes.sql")]
