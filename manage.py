"""Django's commands, and the farm's: migrate, serve, farm_setup, farm_key, farm_roles, farm_executions.

They need DATABASE_URL and its like. On one's own machine `python -m agentfarm.local env` prints those of the local
servers, and `make run` starts everything.
"""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentfarm.settings")
    os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # read once, when langgraph is first imported
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
