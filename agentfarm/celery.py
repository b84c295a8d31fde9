"""So that `celery -A agentfarm` finds the app as well as `celery -A workers`."""

from workers.celery import app

__all__ = ["app"]
