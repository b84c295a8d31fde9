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


ACCEPTED: Mapping[str, Accepted] = {
    "pydantic_refuses": Accepted(
        r"steps\[0\]\.events",
        "the state that the model then refuses is told the moment it is made; stock drops what it had not handed out "
        "when the next superstep cannot be prepared. To drop it as well, the first event of every run would have to "
        "wait until its nodes are prepared; it is the state that the thread then shows, here and by stock",
    ),
}
