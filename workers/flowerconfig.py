"""Flower's options: `celery -A workers flower --conf=workers/flowerconfig.py`.

Read by tornado as a Python file. Flower shows work as graph.node (the message's shadow) with the tenant's id among the
arguments; it never sees state. Queue lengths of RabbitMQ need its management API:
FLOWER_BROKER_API=http://user:password@host:15672/api/.
"""

import os

from agentfarm.conf import settings as _settings

_user, _password = _settings().flower_user, _settings().flower_password.get_secret_value()
if not (_user and _password):
    # Without it the list of tasks is open to all who reach the port, and /api could shut workers down.
    raise SystemExit("Flower does not start without FLOWER_USER and FLOWER_PASSWORD.")
if os.environ.get("FLOWER_UNAUTHENTICATED_API", "").lower() in ("1", "true", "yes", "on", "y", "t"):
    raise SystemExit("FLOWER_UNAUTHENTICATED_API lets anyone end workers and run tasks; unset it.")

if _settings().broker_kind == "sqs":
    raise SystemExit("On SQS workers tell nobody what they do: Flower would show nothing. Start the farm without it.")

basic_auth = [f"{_user}:{_password}"]
address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", "5555"))
read_only = True  # its forms can run any task and end any worker; runs are cancelled and retried in the admin
max_tasks = 20_000
natural_time = False
purge_offline_workers = 3600
tasks_columns = "name,state,kwargs,received,started,runtime,worker,uuid"
