"""The schema of a home: tables, functions, walls."""

from django.db import migrations

from agentfarm.persistence.schema import ensure_roles, run_files


class Migration(migrations.Migration):
    initial = True
    dependencies: list[tuple[str, str]] = []

    operations = [
        migrations.RunPython(ensure_roles),
        migrations.RunPython(run_files("tables.sql", "admit.sql", "hot.sql", "heal.sql", "walls.sql")),
    ]
