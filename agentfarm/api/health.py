"""Whether what this process needs is there: asked in threads of its own, briefly, and at most about once a second.

A server that is reached and says nothing is down; its question goes on waiting, and no second one is put beside it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from agentfarm.errors import Unavailable
from agentfarm.flow.farm import Farm

logger = logging.getLogger(__name__)

#: How long who asks is kept waiting: less than the second or more that orchestrators give a probe.
ANSWER_SECONDS: Final = 0.9

#: An answer is good for so long, so that many probes cost no more than one.
KEEP_SECONDS: Final = 1.0

#: Well-formed, of no tenant: looking it up is the cheapest question that the app role may ask.
NO_KEY: Final = f"af_{'0' * 32}_none"

#: Raises Unavailable, or answers whether it is there.
Question = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Asked:
    at: float
    answer: "Future[bool]"


class Health:
    """questions  by what is asked about"""

    def __init__(self, questions: Mapping[str, Question]) -> None:
        self._questions = questions
        self._threads = ThreadPoolExecutor(len(questions), thread_name_prefix="health")
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}

    def look(self) -> dict[str, bool]:
        """What is there, within ANSWER_SECONDS."""
        asked = self._ask()
        wait(asked.values(), timeout=ANSWER_SECONDS)
        return {name: answer.done() and answer.result() for name, answer in asked.items()}

    def _ask(self) -> dict[str, "Future[bool]"]:
        with self._lock:
            now = time.monotonic()
            for name, question in self._questions.items():
                before = self._asked.get(name)
                if before is None or (before.answer.done() and now - before.at > KEEP_SECONDS):
                    self._asked[name] = _Asked(now, self._threads.submit(_is_there, name, question))
            return {name: asked.answer for name, asked in self._asked.items()}


def _is_there(name: str, question: Question) -> bool:
    try:
        return question()
    except Unavailable:
        return False
    except Exception:  # a bug of ours, or a server that is not what we take it for
        logger.exception("a server could not be asked whether it is there", extra={"server": name})
        return False


def health_of(farm: Farm) -> Health:
    """database: nothing works without it. streams, broker: runs are taken, and go on when they are back."""

    def database() -> bool:
        farm.keys.find(NO_KEY)
        return True

    def streams() -> bool:
        farm.log.ping()
        return True

    def broker() -> bool:
        return farm.publisher.queue_length("") is not None

    return Health({"database": database, "streams": streams, "broker": broker})
