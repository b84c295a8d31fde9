"""Every error that AgentFarm raises on purpose; those of one module alone are drawn with its name, and live there.

    AgentFarmError
    ├── Misconfigured                 the operator's: refused at start
    │   ├── RoleCanBypassIsolation
    │   ├── StrictSerializerOff
    │   └── SchemaNotMigrated
    ├── BadRequest            400
    │   ├── Malformed                 messages.py; never reaches a client
    │   ├── InvalidId         422
    │   └── InvalidInput      422
    │       ├── UnsupportedField
    │       └── NameReused
    ├── Unauthenticated       401
    ├── NotFound              404
    │   └── GraphNotFound
    ├── MethodNotAllowed      405     api/problems.py
    ├── Conflict              409
    │   ├── ThreadBusy
    │   ├── AlreadyExists
    │   ├── StateUnreadable
    │   └── GraphChanged
    ├── TooLarge              413
    ├── NotServedYet          501     api/problems.py
    ├── GraphLoadFailed       503     the graph's own code: a client is told, and trying again does not help
    ├── Unavailable           503     may succeed later
    │   ├── StoreUnavailable
    │   ├── RedisTierUnavailable  inside: whoever meets it goes on in Postgres
    │   ├── BrokerUnavailable
    │   ├── StreamUnavailable
    │   └── CacheUnavailable
    ├── ValueLost                     the graph's: as the error of its run, or 500 where a state is changed by hand
    ├── StateTooLarge                 the graph's, as the error of its run
    ├── FanOutTooWide
    ├── HeadMoved                     the flow's; a client sees it at most as the error of a run
    ├── LeaseLost                     the flow's own: never reach a client
    │   └── FencedOut                 engine/fenced.py
    ├── Stale
    ├── NoTenantInScope               bugs of ours: a client is told 500
    ├── StoreFailed                   persistence/store_errors.py
    ├── CheckpointOutOfOrder          persistence/store_errors.py
    └── SavedTwice                    persistence/store_errors.py

Each class knows its code, its HTTP status and whether trying again can help. The sentence is for people, the facts
are for machines. Both carry ids, never state, prompts, keys or another tenant's words.
"""

from typing import ClassVar


class AgentFarmError(Exception):
    """Base of every error raised on purpose. Survives pickle: it crosses Celery's pool."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    may_succeed_later: ClassVar[bool] = False
    says: ClassVar[str] = "The server failed; the operator finds the cause in the log under this request id."

    def __init__(self, message: str | None = None, **facts: object) -> None:
        super().__init__(message or self.says.format(**facts))
        self.facts = facts


# --------------------------------------------------------------------------- the operator's


class Misconfigured(AgentFarmError):
    """A setting or a server is not as it must be; the process does not start."""

    code = "misconfigured"


class RoleCanBypassIsolation(Misconfigured):
    code = "role_can_bypass_isolation"
    says = (
        "The database role {role!r} of {setting} {why}, so row-level security would not hold between tenants. "
        "Connect as a role that is NOSUPERUSER NOBYPASSRLS and owns nothing, for example farm_app: "
        "`python manage.py farm_roles` prints the statements that make it."
    )


class StrictSerializerOff(Misconfigured):
    code = "strict_serializer_off"
    says = (
        "LANGGRAPH_STRICT_MSGPACK is not true in this process: a stored value could make LangGraph call any function. "
        "Set LANGGRAPH_STRICT_MSGPACK=true before langgraph is imported (manage.py, workers/ and the Procfile do)."
    )


class SchemaNotMigrated(Misconfigured):
    code = "schema_not_migrated"
    says = "The database of {setting} lacks {missing}. Run `python manage.py migrate` with DATABASE_OWNER_URL set."


# --------------------------------------------------------------------------- the client's


class BadRequest(AgentFarmError):
    code = "bad_request"
    http_status = 400
    says = "The request cannot be read: {why}."


class InvalidId(BadRequest):
    code = "invalid_id"
    http_status = 422
    says = "{what} must be a UUID, for example '0192f3a4-7c1e-7d3a-9f10-5b2c8e4a6d01'."


class InvalidInput(BadRequest):
    code = "invalid_input"
    http_status = 422
    says = "{where}: {why}."


class NameReused(InvalidInput):
    code = "idempotency_key_reused"
    says = "Idempotency-Key: another request had this key within the last 24 hours. Send each request its own key."


class UnsupportedField(InvalidInput):
    code = "unsupported_field"
    says = "{field} is not supported by this server; leave it out. (To drop it would change what you asked for.)"


class Unauthenticated(AgentFarmError):
    code = "unauthenticated"
    http_status = 401
    says = "Send a valid API key in the header x-api-key. Keys are made in the admin or by `python manage.py farm_key`."


class NotFound(AgentFarmError):
    """For another tenant's thing too: byte for byte what a thing that does not exist gets."""

    code = "not_found"
    http_status = 404
    says = "{what} not found."


class GraphNotFound(NotFound):
    code = "graph_not_found"
    says = "Graph {graph_id!r} is not served here. Served: {known}."


class Conflict(AgentFarmError):
    code = "conflict"
    http_status = 409
    says = "{why}."


class ThreadBusy(Conflict):
    code = "thread_busy"
    says = "The thread has a run that is not over. {hint}"


class AlreadyExists(Conflict):
    code = "already_exists"
    says = "{what} exists already. Send if_exists='do_nothing' to get it."


class TooLarge(AgentFarmError):
    code = "too_large"
    http_status = 413
    says = "{what} is larger than the {limit_bytes} bytes this server takes."


# --------------------------------------------------------------------------- may pass


class Unavailable(AgentFarmError):
    code = "unavailable"
    http_status = 503
    may_succeed_later = True
    says = "The server cannot do this now. Try again in a moment."


class StoreUnavailable(Unavailable):
    """The database cannot be reached, or the link broke: also after a COMMIT was sent, whose answer is lost then."""

    code = "store_unavailable"
    says = (
        "The database did not answer. If this was to change something, it is not known whether it did: "
        "look before you send it again, in a moment."
    )


class BrokerUnavailable(Unavailable):
    code = "broker_unavailable"
    says = (
        "The broker did not take {count} message(s) ({why}). They are in the outbox and will be published by the "
        "healer."
    )


class RedisTierUnavailable(Unavailable):
    """Inside: whoever meets it goes on in Postgres."""

    code = "redis_tier_unavailable"
    says = "Redis did not do what a run needs of it ({why}). The run goes on in the database."


class StreamUnavailable(Unavailable):
    code = "stream_unavailable"
    says = "The stream store did not answer. The run goes on; join it again in a moment."


class CacheUnavailable(Unavailable):
    """Where the cache of nodes is to be cleared: a run does not notice."""

    code = "cache_unavailable"
    says = "The node cache did not answer. Some of it may be cleared; clear it again in a moment."


# --------------------------------------------------------------------------- the flow's own


class LeaseLost(AgentFarmError):
    """Another worker holds this node execution now; what we computed must not be saved."""

    code = "lease_lost"
    http_status = 409
    says = (
        "Node execution {execution_id} was taken over from this worker. Nothing of it was saved and nothing is lost: "
        "another worker executes it."
    )


class HeadMoved(AgentFarmError):
    """The thread's head is not the checkpoint this commit starts from: somebody else has advanced it."""

    code = "head_moved"
    http_status = 409
    says = "Thread {thread_id} has moved past checkpoint {checkpoint_id}. Nothing was saved."


class Stale(AgentFarmError):
    """The message names a checkpoint or a node that the run has moved past."""

    code = "stale"
    http_status = 409
    says = "Nothing of the run is left to do at {where}."


class GraphLoadFailed(AgentFarmError):
    code = "graph_load_failed"
    http_status = 503
    says = "Graph {graph_id!r} could not be loaded: {why}."


class ValueLost(AgentFarmError):
    """A value cannot be kept between two nodes. place: where it is, as a sentence begins; type: with its module."""

    code = "value_lost"
    says = "{place} holds a {type}, which cannot be kept between two nodes. {todo}"


class StateTooLarge(AgentFarmError):
    """A node leaves more than is taken at once. Nothing of it was saved."""

    code = "state_too_large"
    says = (
        "A step of this run would save {size} bytes, and at most {most} are taken at once "
        "(AGENTFARM_MAX_STATE_BYTES). Keep what is large elsewhere, and its name in the state."
    )


class FanOutTooWide(AgentFarmError):
    """A step sends to more nodes than may be beside each other. Nothing of it was saved."""

    code = "fan_out_too_wide"
    says = (
        "A step of this run would begin {width} nodes beside each other, and at most {most} may be "
        "(AGENTFARM_MAX_FAN_OUT). Let each of fewer nodes do several of them."
    )


class StateUnreadable(Conflict):
    """What was stored by another build has a class that this build cannot make any more."""

    code = "state_unreadable"
    says = (
        "{place} of this thread was stored with a {type}, and {why}. Serve the thread with the build that wrote it, or "
        'bring the class back (a new field needs a default); "lossy_state": true at the graph in langgraph.json reads '
        "it as plain data instead."
    )


class GraphChanged(Conflict):
    """The thread cannot go on under the graph that is served now. why: what of it is gone or different."""

    code = "graph_changed"
    says = (
        "The thread was begun under another build of graph {graph_id!r}, and this one cannot go on with it: {why}. "
        "Serve it with the build that began it, or bring back what it needs; then retry the run."
    )


class NoTenantInScope(AgentFarmError):
    code = "no_tenant_in_scope"
    says = "Asked for the tenant outside of a request or message. This is a bug: nothing may be read for nobody."
