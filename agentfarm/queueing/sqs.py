"""SQS: what the farm asks of it, and what is wrong with a setting, said before anything starts.

Imports nothing that `pip install celery[sqs]` brings: a farm on another broker has none of it. The transport itself is
kombu_sqs.py.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from kombu.transport import TRANSPORT_ALIASES

from agentfarm.conf import Settings
from agentfarm.errors import Misconfigured
from agentfarm.messages import at_build
from agentfarm.queueing.names import VERSION, broker_name

#: How long SQS holds a question for messages open while there are none: fewer questions, and each is paid for. A
#: message that comes meanwhile is answered with at once. Also how long one waits that a worker gives back.
WAIT_SECONDS = 10

#: Between two looks whether there is a free slot, and between two questions. 0 would turn the worker's loop at full
#: speed for as long as all its slots are taken.
POLL_SECONDS = 0.1

CONNECT_SECONDS = 5
READ_SECONDS = WAIT_SECONDS + 5

#: The queue for messages that were handed out too often.
DEAD = "dead"

#: SQS's own.
MAX_NAME = 80

#: What a build's queue has behind its name, as SQS spells it.
_OF_BUILD = f"-{VERSION}-b"


def install() -> None:
    """`sqs://` is our transport from now on in this process; idempotent.

    raises  Misconfigured where what it needs is not installed
    """
    missing = [name for name in ("boto3", "pycurl") if find_spec(name) is None]
    if missing:
        raise Misconfigured(
            f"CELERY_BROKER_URL names SQS, which needs {' and '.join(missing)}, and that is not installed. Run "
            "`.venv/bin/pip install --require-hashes -r requirements-sqs.txt`, or name RabbitMQ (amqp://) or Redis "
            "(redis://)."
        )
    TRANSPORT_ALIASES["sqs"] = "agentfarm.queueing.kombu_sqs:Transport"


def transport_options(settings: Settings, *, visibility_seconds: int, delivery_limit: int) -> dict[str, Any]:
    """For `broker_transport_options`.

    raises  Misconfigured where no region is named
    """
    url = urlsplit(settings.broker_url.get_secret_value())
    return {
        "region": _region(settings, is_ours=bool(url.hostname)),
        # A server of one's own with a port speaks HTTP. Keys sign requests and are not sent.
        "is_secure": url.port in (None, 443),
        "queue_name_prefix": settings.sqs_prefix,
        "visibility_timeout": visibility_seconds,
        "delivery_limit": delivery_limit,
        "wait_time_seconds": WAIT_SECONDS,
        "polling_interval": POLL_SECONDS,
        "client-config": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            # Whoever publishes has a client waiting, and the outbox behind him.
            "retries": {"total_max_attempts": 2, "mode": "standard"},
            "max_pool_connections": 16,
        },
    }


def _region(settings: Settings, *, is_ours: bool) -> str:
    """kombu would take us-east-1 without a word."""
    region = settings.sqs_region or str(import_module("boto3").Session().region_name or "")
    if not region and not is_ours:
        raise Misconfigured(
            "CELERY_BROKER_URL names SQS, and no region is set. Set AGENTFARM_SQS_REGION or AWS_REGION, for example "
            "to 'eu-central-1'."
        )
    return region or "us-east-1"


def check_names(settings: Settings, queues: Sequence[str]) -> None:
    """Refuse queues that SQS cannot name, or would name like another build's: it knows no dot.

    queues  as graphs name them
    raises  Misconfigured
    """
    for queue in queues:
        told = sqs_name(settings.sqs_prefix, broker_name(at_build(queue, settings.build)))
        if len(told) > MAX_NAME:
            raise Misconfigured(
                f"Queue {queue!r} would be {told!r} on SQS, which takes {MAX_NAME} characters. Shorten it, "
                "AGENTFARM_SQS_PREFIX or AGENTFARM_BUILD."
            )
        if _OF_BUILD in queue:
            raise Misconfigured(
                f"Queue {queue!r} cannot be on SQS: {_OF_BUILD!r} in it could make it the queue of a build. Rename it."
            )


def sqs_name(prefix: str, broker_queue: str) -> str:
    """How SQS calls a queue. kombu does the same."""
    return prefix + broker_queue.replace(".", "-")


def mend_queue(channel: Any, name: str) -> None:
    """Give a queue that was there already what a new one gets. Asks for no change where there is none to make."""
    url = channel._new_queue(name)
    wanted = channel.queue_attributes()
    client = channel.sqs()
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=list(wanted)).get("Attributes", {})
    if changed := {key: value for key, value in wanted.items() if not _same(key, value, found.get(key, ""))}:
        client.set_queue_attributes(QueueUrl=url, Attributes=changed)


def _same(key: str, wanted: str, found: str) -> bool:
    """SQS answers JSON in its own spelling."""
    if key != "RedrivePolicy" or not found:
        return wanted == found
    policies = [{name: str(value) for name, value in json.loads(each).items()} for each in (wanted, found)]
    return bool(policies[0] == policies[1])
