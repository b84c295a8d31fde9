"""flow/ports.Publisher: the message of the one Celery task, published without Celery's machinery for making it.

The same headers, body and exchange as `Task.apply_async` (a test compares them), from constants: 0.06 ms instead of
0.31 on Redis, 0.21 instead of 0.48 on RabbitMQ. What is lost are send signals and routers, which an internal task
has no use for. Delivery is confirmed: RabbitMQ answers each publish, Redis each command, SQS each request.
"""

import json
import os
import socket
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis.exceptions
from amqp.exceptions import MessageNacked
from celery import Celery
from kombu import Connection, Producer, Queue
from kombu.exceptions import BatchPublishError, KombuError  # type: ignore[attr-defined]  # of the stubs for 5.3

from agentfarm import clock
from agentfarm.errors import BrokerUnavailable
from agentfarm.messages import ExecuteNode, at_build, render_message, split_build
from agentfarm.queueing.broker import EXECUTE_NODE, make_queue
from agentfarm.queueing.names import graph_name

#: How long the broker may take for one answer before what was asked counts as not done. RabbitMQ says nothing to whom
#: it has blocked (an alarm of memory or disk), and a client waits at the other end of this.
ANSWER_SECONDS = 5.0

#: After a failure nobody asks the broker for so long, doubled from the first to the last: what is to be published stays
#: in the outbox at once, instead of each request's waiting for the same silence.
FIRST_PAUSE, LAST_PAUSE = 0.5, 8.0

#: Producers (a connection each) that are kept while nobody publishes. More are made when more publish at once.
MAX_IDLE = 16

#: The broker is there, and does not answer: asking again at once would only wait again.
_SILENCE = (TimeoutError, redis.exceptions.TimeoutError)

#: What Celery's protocol has behind args and kwargs.
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@dataclass(frozen=True, slots=True)
class _Line:
    """A connection and the producer on it."""

    connection: Connection
    producer: Any  # a kombu Producer; celery-types has that of kombu 5.3


#: What is to be sent, by the broker's names of the queues; one that has nothing left is not in it.
_Waiting = dict[str, deque[ExecuteNode]]


class CeleryPublisher:
    """Publishes to one broker, from any number of threads: each publish has a producer to itself for its time."""

    def __init__(self, app: Celery, default_queue: str) -> None:
        self._app = app
        declared = {graph_name(name): queue for name, queue in app.amqp.queues.items()}
        self._is_amqp = next(iter(declared.values())).exchange.type == "topic"
        self._queues: dict[str, Queue] = dict(declared)  # of other builds, too, once something was published for them
        self._names = frozenset(split_build(name)[0] for name in declared)
        self._default_name = default_queue
        self._idle: deque[_Line] = deque()
        self._pid = os.getpid()
        self._headers = constant_headers()
        connection = app.connection_for_write()  # not connected: it knows its transport and its errors
        transport = connection.transport.driver_type
        self._has_batches, self._is_sqs = transport == "redis", transport == "sqs"
        self._pause = 0.0
        self._paused_until = 0.0  # monotonic
        limits = {"amqp": ("read_timeout", "write_timeout"), "redis": ("socket_timeout",)}.get(transport, ())
        self._limits = dict.fromkeys(limits, ANSWER_SECONDS)  # those of SQS are boto's
        #: What concerns one queue, while the broker is well: one that is not there, without its majority, or full.
        self._refusals: tuple[type[BaseException], ...] = (*connection.channel_errors, MessageNacked)
        self._broker_errors: tuple[type[BaseException], ...] = (
            *connection.connection_errors,
            *self._refusals,
            KombuError,
            OSError,
        )

    def publish(self, messages: Sequence[ExecuteNode]) -> None:
        """In each queue's order, each confirmed. Connects anew once, unless the broker is reached and says nothing. A
        queue that refuses its messages keeps those of no other from being sent.

        raises  BrokerUnavailable, also for a while after the broker failed: what was not taken stays in the outbox. The
                last may have been taken and not confirmed: a message delivered twice finds the lease or the result
        """
        if not messages:
            return
        if self._is_paused():
            raise BrokerUnavailable(count=len(messages), why="it failed a moment ago")
        waiting: _Waiting = {}
        for message in messages:
            waiting.setdefault(self._queue(message.queue).name, deque()).append(message)
        try:
            self._send_all(waiting)
        except BrokerUnavailable as error:
            self._begin_pause(error.__cause__)
            raise
        self._pause = 0.0

    def queue_length(self, queue: str) -> int | None:
        """Messages that wait in the broker, without those that a worker has; None where it cannot be told.

        SQS answers what it believes, which may be some seconds old.
        """
        if self._is_paused():
            return None
        line = self._take()
        try:
            if line is None:
                line = self._connect()
            # Redis forgets an empty list, which a passive declaration would call missing.
            channel = line.producer.channel
            _, length, _ = channel.queue_declare(self._queue(queue).name, passive=self._is_amqp)
        except self._broker_errors as error:
            if line is not None:
                self._drop(line)
            self._begin_pause(error)
            return None
        self._keep(line)
        return int(length)

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        while (line := self._take()) is not None:
            self._drop(line)

    # -- sending

    def _send_all(self, waiting: _Waiting) -> None:
        if (line := self._take()) is not None:
            try:
                for name in tuple(waiting):
                    self._send(line, waiting, name)
            except self._broker_errors as error:
                self._drop(line)
                self.close()  # who restarted took the other connections along
                if isinstance(error, _SILENCE):
                    raise _unavailable(waiting, error) from error
            else:
                self._keep(line)
        if waiting:
            self._send_anew(waiting)

    def _send_anew(self, waiting: _Waiting) -> None:
        """The second try: on a new connection, and with the queues declared, which a new broker does not have."""
        line, refusal = None, None
        try:
            line = self._connect()
            for name in tuple(waiting):
                try:
                    if self._is_amqp:
                        self._queue(waiting[name][0].queue)(line.producer.channel).declare()
                    self._send(line, waiting, name)
                except self._refusals as error:
                    if not self._is_of_one_queue(error):
                        raise
                    refusal = error
                    line = self._with_new_channel(line)
        except self._broker_errors as error:
            if line is not None:
                self._drop(line)
            raise _unavailable(waiting, error) from error
        self._keep(line)
        if refusal is not None:
            raise _unavailable(waiting, refusal) from refusal

    def _send(self, line: _Line, waiting: _Waiting, name: str) -> None:
        """Empties a queue's as messages are taken, then takes it out of `waiting`."""
        messages = waiting[name]
        if not self._has_batches or len(messages) == 1:
            while messages:
                self._send_one(line.producer, messages[0])
                messages.popleft()
        else:
            self._send_batch(line, messages)
        del waiting[name]

    def _send_batch(self, line: _Line, messages: Iterable[ExecuteNode]) -> None:
        """In one round trip. Raises what one message would."""
        try:
            with line.producer.batch():
                for message in messages:
                    self._send_one(line.producer, message)
        except BatchPublishError as error:
            if isinstance(error.__cause__, self._broker_errors):
                raise error.__cause__ from None
            raise

    def _is_of_one_queue(self, error: BaseException) -> bool:
        """kombu calls it a refusal, too, when SQS is not reached; what SQS itself refuses has its answer."""
        return not self._is_sqs or hasattr(error, "response")

    def _with_new_channel(self, line: _Line) -> _Line:
        """RabbitMQ closes a channel over some refusals, and owes one a confirmation after others."""
        if not self._is_amqp:
            return line
        line.producer.channel.close()
        return _Line(line.connection, Producer(line.connection.channel(), auto_declare=False))

    def _send_one(self, producer: Producer, message: ExecuteNode) -> None:
        task_id = str(uuid.uuid4())
        queue = self._queue(message.queue)
        headers = {
            **self._headers,
            "id": task_id,
            "root_id": task_id,
            "shadow": message.shadow,
            "kwargsrepr": message.told_kwargs,
        }
        producer.publish(
            json.dumps(([render_message(message)], {}, _EMBED)).encode(),
            # Else the anonymous exchange: kombu asks Redis for the bindings of any other at each publish, SQS has none.
            exchange=queue.exchange.name if self._is_amqp else "",
            routing_key=queue.routing_key,
            headers=headers,
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=task_id,
            reply_to="",
            delivery_mode=2,
            mandatory=self._is_amqp,  # RabbitMQ drops in silence what no queue is bound for
            confirm_timeout=ANSWER_SECONDS if self._is_amqp else None,
            retry=False,
            **self._of_broker(message),
        )

    def _of_broker(self, message: ExecuteNode) -> dict[str, Any]:
        """SQS gives a tenant with much work no more of a queue than the others get ("fair queues")."""
        return {"MessageGroupId": message.tenant_id.hex} if self._is_sqs else {}

    def _queue(self, name: str) -> Queue:
        """The default one for a name that is not known here: whoever reads it can execute every node."""
        known, build = split_build(name)
        name = at_build(known if known in self._names else self._default_name, build)
        if (queue := self._queues.get(name)) is None:
            queue = self._queues[name] = make_queue(name, amqp=self._is_amqp)
        return queue

    # -- while the broker is away

    def _is_paused(self) -> bool:
        return clock.monotonic_seconds() < self._paused_until

    def _begin_pause(self, error: BaseException | None) -> None:
        if isinstance(error, self._refusals):
            return
        self._pause = min(max(FIRST_PAUSE, self._pause * 2), LAST_PAUSE)
        self._paused_until = clock.monotonic_seconds() + self._pause

    # -- connections

    def _take(self) -> _Line | None:
        """A line that nobody uses, or None. A forked child forgets its parent's, and does not close them."""
        if self._pid != os.getpid():
            self._pid, self._idle = os.getpid(), deque()
            self._headers = constant_headers()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> _Line:
        connection = self._app.connection_for_write(transport_options=self._limits, connect_timeout=ANSWER_SECONDS / 2)
        # At most twice and without a pause: whoever publishes has a client waiting, and the outbox behind him.
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
        return _Line(connection, Producer(connection.channel(), auto_declare=False))

    def _keep(self, line: _Line) -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(line)
        else:
            self._drop(line)

    def _drop(self, line: _Line) -> None:
        with suppress(*self._broker_errors):  # it may be broken already, which is why it goes
            line.connection.collect()  # without a farewell, which a broker that says nothing would not answer


def _unavailable(waiting: _Waiting, error: BaseException) -> BrokerUnavailable:
    return BrokerUnavailable(count=sum(map(len, waiting.values())), why=_why(error))


def _why(error: BaseException) -> str:
    """Its kind, and with SQS what it calls it. Not its text, which may name hosts and keys."""
    answer = getattr(error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return f"{type(error).__name__} {code}" if code else type(error).__name__


def constant_headers() -> dict[str, Any]:
    """The headers of protocol 2 that are the same for each message of this process.

    source  celery.app.amqp.AMQP.as_task_v2, celery 5.7.0
    """
    return {
        "lang": "py",
        "task": EXECUTE_NODE,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "parent_id": None,
        "argsrepr": "",
        "origin": f"{os.getpid()}@{socket.gethostname()}",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
