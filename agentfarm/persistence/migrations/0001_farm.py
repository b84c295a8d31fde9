"""The schema of a home: tables, functions, walls."""

from typing import ClassVar

from django.db import migrations
from django.db.migrations.operations.base import Operation

from agentfarm.persistence.schema import ensure_roles, run_files


class Migration(migrations.Migration):
    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []

    operations: ClassVar[list[Operation]] = [
        migrations.RunPython(ensure_roles),
        migrations.RunPython(
            run_files("tables.sql", "admit.sql", "hot.sql", "redis_tier.sql", "heal.sql", "store.sql", "walls.sql")
        ),
    ]
