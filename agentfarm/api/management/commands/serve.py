"""`python manage.py serve`: the web process."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.urls import get_resolver

from agentfarm.api.application import application, streams
from agentfarm.api.process import farm
from agentfarm.api.server import check_host, leave, listen, render_address, serve
from agentfarm.conf import settings
from agentfarm.errors import AgentFarmError
from agentfarm.garbage import spare_what_stays
from agentfarm.wiring import check


class Command(BaseCommand):
    help = "Serve the HTTP API, its documents at /docs and the admin, until SIGTERM. One process."
    requires_system_checks: list[str] = []  # noqa: RUF012  # Django's

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--host", default=settings().host, help="address to listen on (AGENTFARM_HOST: %(default)s)"
        )
        parser.add_argument("--port", type=int, default=settings().port, help="port (PORT: %(default)s)")

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        try:
            check_host(host)
            check()
            graphs = farm().graphs
            listener = listen(host, port)
        except AgentFarmError as error:
            raise CommandError(str(error)) from error
        for graph_id, why in graphs.problems.items():
            self.stderr.write(f"graph {graph_id} is not served: {why}")
        get_resolver().check()  # loads every route now: what is wrong with one ends the process and not each request
        served = ", ".join(graphs.ids()) or "no graph"
        self.stdout.write(f"AgentFarm serves {served} at http://{render_address(host, port)} (documents: /docs)")
        app = application()
        spare_what_stays()
        serve(app, listener, end_streams=streams().end_streams)
        leave()
