"""kombu's SQS transport, without what would end a worker or leave it deaf.

Of kombu 5.7.0, each seen on a server that was killed, emptied or silent:
- An answer of 5xx and a refused connection come as [], of which kombu then wants a dict's method: the worker ends.
- A refusal (a queue that is gone, a key that is revoked) is raised into the worker's loop: the worker ends.
- Questions have no time limit: behind a network that swallows packets the worker hears nothing more, for ever.
- ClientError is not among the transport's errors, so that who publishes cannot tell it from a bug.

Here each is a warning, a pause and another question. A queue is also made with a dead-letter queue.
"""

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pycurl
from botocore.exceptions import BotoCoreError, ClientError
from kombu.asynchronous.http.curl import CurlClient
from kombu.transport import SQS
from vine import promise

from agentfarm.queueing.sqs import CONNECT_SECONDS, DEAD, WAIT_SECONDS

logger = logging.getLogger(__name__)

#: After a question that failed.
PAUSE_SECONDS = 1.0

#: An answer that takes longer does not come.
RECEIVE_SECONDS = WAIT_SECONDS + 10

# Their stubs know little of them.
_Curl: Any = CurlClient
_options: Any = pycurl
_Channel: Any = SQS.Channel
_Transport: Any = SQS.Transport

_REFUSED = (ClientError, BotoCoreError, OSError)


class PunctualCurl(_Curl):  # type: ignore[misc]  # of what has no types
    """Ends a request that nobody answers."""

    def _setup_request(self, curl: Any, request: Any, buffer: Any, headers: Any, *more: Any) -> None:
        super()._setup_request(curl, request, buffer, headers, *more)
        curl.setopt(_options.NOSIGNAL, 1)
        curl.setopt(_options.CONNECTTIMEOUT_MS, int(CONNECT_SECONDS * 1000))
        curl.setopt(_options.TIMEOUT_MS, int(RECEIVE_SECONDS * 1000))


class Channel(_Channel):  # type: ignore[misc]
    def asynsqs(self, queue: str | None = None) -> Any:
        if not hasattr(self.hub, "_current_http_client"):  # kombu's own place for it
            self.hub._current_http_client = PunctualCurl(self.hub)
        return super().asynsqs(queue)

    def _schedule_queue(self, queue: str) -> None:
        try:
            super()._schedule_queue(queue)
        except _REFUSED as error:  # a queue that is gone is looked up and made, with blocking calls
            self._ask_later(error, lambda: self._schedule_queue(queue))

    def _get_from_sqs(
        self, queue_name: str, queue_url: str, connection: Any, count: int = 1, callback: Any = None
    ) -> Any:
        def received(answer: Any) -> None:
            if isinstance(answer, dict):
                # Not from within: what is raised while a message is handled is no error of the question.
                self.hub.call_soon(partial(callback, answer))
            else:
                failed("no answer, or one of 5xx")

        def failed(error: object) -> None:
            self._queue_cache.pop(queue_name, None)  # it may be gone: look it up
            self._ask_later(error, lambda: callback({}))

        return connection.receive_message(
            queue_name, queue_url, number_messages=count, wait_time_seconds=self.wait_time_seconds,
            callback=promise(received, on_error=failed),
        )  # fmt: skip

    def _ask_later(self, error: object, ask: Callable[[], Any]) -> None:
        # Its text may hold the request's signature.
        told = error if isinstance(error, str) else type(error).__name__
        logger.warning("SQS was asked for messages and failed (%s); asking again in %.0f s", told, PAUSE_SECONDS)
        self.hub.call_later(PAUSE_SECONDS, ask)

    def _envelope_payload(self, payload: Any, raw_text: str, message: Any, q_url: str) -> Any:
        """Says as the other brokers do that somebody had the message before."""
        made = super()._envelope_payload(payload, raw_text, message, q_url)
        if int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)) > 1:
            made["properties"]["delivery_info"]["redelivered"] = True
        return made

    # -- queues

    def _create_queue(self, queue_name: str, attributes: dict[str, str]) -> Any:
        if queue_name != self.canonical_queue_name(DEAD):
            attributes |= self.queue_attributes()
        sqs = self.sqs()
        try:
            return super()._create_queue(queue_name, attributes)
        except sqs.exceptions.QueueNameExists:  # somebody has made it meanwhile, with other settings than these
            return sqs.get_queue_url(QueueName=queue_name)

    def queue_attributes(self) -> dict[str, str]:
        """Of every queue but that of dead letters, which is made where it is not."""
        dead = self.sqs().get_queue_attributes(QueueUrl=self._new_queue(DEAD), AttributeNames=["QueueArn"])
        limit = self.transport_options["delivery_limit"]
        policy = {"deadLetterTargetArn": dead["Attributes"]["QueueArn"], "maxReceiveCount": limit}
        return {"VisibilityTimeout": str(self.visibility_timeout), "RedrivePolicy": json.dumps(policy)}


class Transport(_Transport):  # type: ignore[misc]
    Channel = Channel

    connection_errors = (*_Transport.connection_errors, ClientError)
    channel_errors = (*_Transport.channel_errors, ClientError)
