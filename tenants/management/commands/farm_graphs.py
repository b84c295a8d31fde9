"""`farm_graphs`: what langgraph.json names, and whether this build can serve it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentfarm.conf import settings
from agentfarm.engine.graphs_config import read_config
from agentfarm.errors import Misconfigured
from agentfarm.wiring import graphs


class Command(BaseCommand):
    help = (
        "The graphs of langgraph.json (AGENTFARM_CONFIG), loaded as a worker loads them: which are served, and why the "
        "others are not. Exits with 1 where the file is wrong or a graph cannot be loaded."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--file-only", action="store_true", help="read the file and its env file; import no graph")

    def handle(self, *_: object, **options: Any) -> None:
        try:
            if options["file_only"]:
                named = read_config(settings().graphs_config).graphs
                self.stdout.write("\n".join(named))
                return
            found = graphs()
        except Misconfigured as error:
            raise CommandError(str(error)) from error
        for graph_id in found.ids():
            self.stdout.write(f"{graph_id}: served")
        for why in found.problems.values():
            self.stdout.write(why)
        if found.problems:
            raise CommandError(f"{len(found.problems)} of {len(found.ids()) + len(found.problems)} cannot be served.")
