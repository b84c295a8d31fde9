"""The farm of this process, made at the first request or by `serve` before it."""

from agentfarm.api.health import Health, health_of
from agentfarm.flow.farm import Farm

_farm: Farm | None = None
_health: Health | None = None


def farm() -> Farm:
    """What the endpoints hand to the flow. Raises Misconfigured where it cannot be built."""
    if _farm is None:
        from agentfarm import wiring

        use_farm(wiring.farm())
    assert _farm is not None
    return _farm


def use_farm(made: Farm | None) -> None:
    """Serve this one: for tests, and for who embeds the API."""
    global _farm, _health  # Django's views can be handed nothing
    _farm, _health = made, None


def health() -> Health:
    """What is known of the servers behind the farm of this process."""
    global _health  # noqa: PLW0603
    if _health is None:
        _health = health_of(farm())
    return _health
