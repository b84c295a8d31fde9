"""Tracers over several processes: LangSmith's, and whatever else is made of LangChain's own.

A tracer keeps the runs that it was told of in memory until they end. Of a run that another process began it would log
an error at its end, and take each node for a run of its own. So it is lent the run for as long as a segment lasts: the
nodes find their parent, and the end is told of a run that is known. LangSmith puts the tree together by ids and by an
order that begins with the start of its root; that order travels with the calls.

A tracer that collects the whole tree and writes it when the root ends (`_persist_run`) gets the nodes of the last
segment alone.
"""

import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from langchain_core.tracers.schemas import Run

from agentfarm.engine import _langgraph as lg

#: How an order spells a time, and how long that is.
_TIME, _LENGTH = "%Y%m%dT%H%M%S%fZ", len("20260101T000000000000Z")

_lent: dict[tuple[int, UUID], int] = {}
_lock = threading.Lock()


class Traced:
    """A run's tracers during one segment."""

    def __init__(self, handlers: Iterable[Any], root: UUID) -> None:
        self.root = root
        self.tracers = [handler for handler in handlers if isinstance(handler, lg.TracerCore)]
        with _lock:
            for key in self._keys():
                _lent[key] = _lent.get(key, 0) + 1

    def order(self) -> str | None:
        """The order of the root, once a tracer was told of its start."""
        return next((found[1] for tracer in self.tracers if (found := tracer.order_map.get(self.root))), None)

    def lend(self, order: str, *, name: str, tags: list[str], metadata: dict[str, Any]) -> None:
        """As if the run had been told of in this process. One that knows it already keeps what it has."""
        for tracer in self.tracers:
            tracer.order_map.setdefault(self.root, (self._trace_id(order), order))
            if str(self.root) not in tracer.run_map:
                tracer.run_map[str(self.root)] = self._run(tracer, order, name, tags, metadata)

    def give_back(self) -> None:
        """The segment is over: a tracer that lives on forgets the run, unless another segment of it is running."""
        with _lock:
            for tracer, key in zip(self.tracers, self._keys(), strict=True):
                _lent[key] -= 1
                if _lent[key] == 0:
                    del _lent[key]
                    tracer.run_map.pop(str(self.root), None)
                    tracer.order_map.pop(self.root, None)

    def _keys(self) -> list[tuple[int, UUID]]:
        # Copies of a tracer share its maps.
        return [(id(tracer.run_map), self.root) for tracer in self.tracers]

    def _run(self, tracer: Any, order: str, name: str, tags: list[str], metadata: dict[str, Any]) -> Run:
        # Its input was told at the start; the end must not say that there was none.
        extra = {"metadata": dict(metadata), "inputs_is_truthy": True}
        started_at = datetime.strptime(order.rsplit(".", 1)[-1][:_LENGTH], _TIME).replace(tzinfo=UTC)
        return Run(
            id=self.root,
            name=name,
            run_type="chain",
            inputs={},
            tags=tags,
            start_time=started_at,
            events=[{"name": "start", "time": started_at}],
            trace_id=self._trace_id(order),
            dotted_order=order,
            ls_client=getattr(tracer, "client", None),
            **tracer._get_run_kwargs(None, extra),
        )

    @staticmethod
    def _trace_id(order: str) -> UUID:
        return UUID(order.split(".", 1)[0][_LENGTH:])
