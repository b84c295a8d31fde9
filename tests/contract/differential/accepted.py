"""Where the farm differs and is meant to, by scenario: at which places of the record, and why.

An accepted difference that no longer differs fails, as does one at any other place.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Accepted:
    """places  regular expression of the places that may differ"""

    places: str
    why: str


_ANSWER = (
    "what a client that waits is told is the thread's state, which shows no writes of nodes that a command sent for "
    "while another asks; `invoke` returns what was in memory"
)

ACCEPTED: Mapping[str, Accepted] = {
    "client_goes_elsewhere": Accepted(r"steps\[1\]\.answer\.log\[\d\]", _ANSWER),
    "pydantic_refuses": Accepted(
        r"steps\[0\]\.events",
        "the state that the model then refuses is told the moment it is made; stock drops what it had not handed out "
        "when the next superstep cannot be prepared",
    ),
    "client_sends": Accepted(r"steps\[1\]\.answer\.log\[\d\]", _ANSWER),
}

#: Not compared after kills: their nodes write the number of the attempt into the state, and a lost one counts.
TELLS_ATTEMPTS = frozenset(
    {"retried", "retried_in_vain", "retried_in_a_fan_out", "handled_after_retries", "execution_info"}
)
