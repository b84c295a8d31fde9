"""The Celery app of this process. `celery -A workers` and `celery -A agentfarm` find it."""

from agentfarm.wiring import celery_app
from workers import lifecycle, schedule

lifecycle.set_up_logs()
app = celery_app()
app.conf.imports = ("workers.tasks",)  # imports this module in turn: not here

lifecycle.install(app)
schedule.install()
