"""Django's commands, and the farm's: migrate, serve, farm_setup, farm_key, farm_roles, farm_executions.

They need DATABASE_URL and its like; farm_roles, which comes first, does not. On one's own machine
`python -m agentfarm.local env` prints those of the local servers, and `make run` starts everything.
"""

import os
import sys


def main() -> None:
    if sys.argv[1:2] == ["farm_roles"]:
        _print_roles()
        return
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentfarm.settings")
    os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # read once, when langgraph is first imported
    from django.core.management import execute_from_command_line

    from agentfarm.errors import Misconfigured

    try:
        execute_from_command_line(sys.argv)
    except Misconfigured as error:
        sys.exit(str(error))  # it says what to do; where it was raised helps nobody


def _print_roles() -> None:
    """With Django's defaults in place of our settings: it makes the passwords that they will hold."""
    from django.conf import settings

    from tenants.management.commands.farm_roles import Command

    settings.configure()
    Command().run_from_argv(sys.argv)


if __name__ == "__main__":
    main()
