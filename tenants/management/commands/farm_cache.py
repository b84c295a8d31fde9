"""`farm_cache clear <tenant> [--graph ID [--node NAME …]]`: results of nodes with a CachePolicy are forgotten."""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentfarm.errors import AgentFarmError
from tenants.models import Tenant, record

WHO = "farm_cache"


class Command(BaseCommand):
    help = "Forget cached results of a tenant's nodes: after their code has changed, or what they looked up."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        clear = commands.add_parser("clear", help="runs that are not over yet execute their nodes again")
        clear.add_argument("tenant", help="the tenant's slug")
        clear.add_argument("--graph", help="of this graph alone; its id in langgraph.json, also one that is gone")
        clear.add_argument("--node", action="append", help="of this node of the graph alone; may be given again")

    def handle(self, *_: object, **options: Any) -> None:
        tenant = Tenant.objects.filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']!r}.")
        if options["node"] and not options["graph"]:
            raise CommandError("--node needs --graph: two graphs may have nodes of one name.")
        try:
            clear(tenant, options["graph"], options["node"] or ())
        except AgentFarmError as error:
            raise CommandError(str(error)) from error
        self.stdout.write("Cleared.")


def clear(tenant: Tenant, graph_id: str | None, nodes: Sequence[str]) -> None:
    """Raises GraphNotFound, CacheUnavailable; CommandError for a node that the graph lacks."""
    from agentfarm import wiring  # loads every graph: not before it is known what to clear

    farm = wiring.farm()
    if not nodes:
        farm.caches.clear(tenant.id, graph_id)
    elif graph_id is not None:
        loaded = farm.graphs.get(graph_id)
        if unknown := [node for node in nodes if node not in loaded.graph.nodes]:
            raise CommandError(f"Graph {graph_id} has no node {', '.join(unknown)}.")
        cache = farm.caches.of(tenant.id, graph_id, fingerprint=loaded.fingerprint)
        loaded.graph.copy(update={"cache": cache}).clear_cache(nodes)
    record(WHO, "cleared", "node cache", "/".join((graph_id or "all graphs", *nodes)), tenant_id=tenant.id)
