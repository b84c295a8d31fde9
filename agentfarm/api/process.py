"""The farm of this process, made at the first request or by `serve` before it."""

from agentfarm.flow.farm import Farm

_farm: Farm | None = None


def farm() -> Farm:
    """What the endpoints hand to the flow. Raises Misconfigured where it cannot be built."""
    if _farm is None:
        from agentfarm import wiring

        use_farm(wiring.farm())
    assert _farm is not None
    return _farm


def use_farm(made: Farm | None) -> None:
    """Serve this one: for tests, and for who embeds the API."""
    global _farm  # noqa: PLW0603  # Django's views can be handed nothing
    _farm = made
