"""What `make run` prints once all is up: where things are, as whom, and two ways to call a graph."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentfarm.local.address import Address
from agentfarm.local.farm import OWN_CONFIG, Access

STUDIO = "https://smith.langchain.com/studio/?baseUrl="

#: As agentfarm/engine/graphs_config.py says it, in text and in JSON.
NO_EFFECT = re.compile(r'key \\?"([^"\\]+)\\?" has no effect')

QUESTION = '{"messages": [{"role": "user", "content": "How many words has the Gettysburg Address?"}]}'


def render_banner(
    address: Address, access: Access, info: Mapping[str, Any], environment: Mapping[str, str], folder: Path
) -> str:
    """info: the answer of /info. environment: what the web was started with."""
    graphs: dict[str, str] = info.get("graphs", {})
    served = [graph for graph, state in graphs.items() if state == "ok"]
    anonymous = environment.get("ANONYMOUS_TENANT")
    lines = [
        "",
        f"  AgentFarm serves {', '.join(served) or 'no graph'}",
        *(f"  Not served {graph}: {state}" for graph, state in graphs.items() if state != "ok"),
        *_keys_without_effect(environment["AGENTFARM_CONFIG"], folder / "logs" / "web.log"),
        "",
        f"  API      {address.url}" + (f"        (without a key you are tenant {anonymous})" if anonymous else ""),
        *_hosts(address, environment),
        f"  Docs     {address.url}/docs",
        f"  Admin    {address.url}/admin/   {access.admin_user} / {access.admin_password}",
        f"  Flower   {address.flower_url}        user and password: FLOWER_USER, FLOWER_PASSWORD of `make env`",
        f"  Studio   {STUDIO}{address.url}",
        f"  Key      {access.key}   (tenant demo; both tenants' keys: {folder / 'farm.env'})",
        f"  Logs     {folder / 'logs'}",
        "",
        *_calls(address, access, served, is_ours=environment["AGENTFARM_CONFIG"] == str(OWN_CONFIG)),
        "",
        "  Ctrl-C ends it; the data stays.",
        "",
    ]
    return "\n".join(lines)


def _hosts(address: Address, environment: Mapping[str, str]) -> list[str]:
    """Of interest where others come from outside: a name that is not in the list is refused with 400."""
    if address.is_loopback:
        return []
    names = environment["AGENTFARM_ALLOWED_HOSTS"].replace(",", " ")
    more = f"AGENTFARM_ALLOWED_HOSTS=my.name,10.0.0.7 make run HOST={address.host}"
    return [f"  Hosts    {names}", f"           (the names by which others may ask; to choose them: {more})"]


def _keys_without_effect(config: str, web_log: Path) -> list[str]:
    """Web said so at its start, in its log, where nobody looks."""
    try:
        said = web_log.read_text(encoding="utf-8", errors="replace").rpartition(" web starts\n")[2]
    except FileNotFoundError:
        return []
    keys = ", ".join(dict.fromkeys(NO_EFFECT.findall(said)))
    return [f"  Without effect here, in {config}: {keys}"] if keys else []


def _calls(address: Address, access: Access, served: list[str], *, is_ours: bool) -> list[str]:
    is_agent = is_ours and "agent" in served
    graph = "agent" if is_agent else served[0] if served else "name of your graph"
    mode, takes = ("messages-tuple", QUESTION) if is_agent else ("values", "{}")
    return [
        *([] if is_agent else ["  input: what your graph takes, in place of {}", ""]),
        f"  curl -N {address.url}/runs/stream -H 'x-api-key: {access.key}' -H 'content-type: application/json' \\",
        f'    -d \'{{"assistant_id": "{graph}", "stream_mode": "{mode}", "input": {takes}}}\'',
        "",
        "  from langgraph_sdk import get_sync_client",
        f'  client = get_sync_client(url="{address.url}", api_key="{access.key}")',
        f'  for event in client.runs.stream(None, "{graph}", stream_mode="{mode}", input={takes}):',
        "      print(event.event, event.data)",
    ]
