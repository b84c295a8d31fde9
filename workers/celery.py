"""The Celery app of this process. `celery -A workers` and `celery -A agentfarm` find it."""

from agentfarm.wiring import celery_app

app = celery_app()
app.conf.imports = ("workers.tasks",)

# After `app`, which both may import: connecting Celery's signals and steps is what these modules are for.
from workers import lifecycle, schedule  # noqa: E402

lifecycle.install(app)
schedule.install()
