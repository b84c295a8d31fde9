"""Every setting, typed, read once from the environment and refused at start by name.

The common ones go by the names that the ecosystem uses (DATABASE_URL, REDIS_URL, CELERY_BROKER_URL, PORT);
the rest start with AGENTFARM_. `settings()` answers the same object everywhere in the process.
"""

import ipaddress
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from agentfarm.errors import Misconfigured
from agentfarm.run_options import MAX_AHEAD_NODES, MAX_AHEAD_SECONDS

BrokerKind = Literal["amqp", "redis", "sqs"]


def _named(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class Settings(BaseSettings):
    """All that an operator can choose."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    # -- servers
    database_url: SecretStr = Field(validation_alias=_named("DATABASE_URL", "POSTGRES_URI"))
    database_owner_url: SecretStr | None = Field(None, validation_alias=_named("DATABASE_OWNER_URL"))
    database_ops_url: SecretStr | None = Field(None, validation_alias=_named("DATABASE_OPS_URL"))
    database_admin_url: SecretStr | None = Field(None, validation_alias=_named("DATABASE_ADMIN_URL"))
    redis_url: SecretStr = Field(validation_alias=_named("REDIS_URL", "REDIS_URI"))
    broker_url: SecretStr = Field(validation_alias=_named("CELERY_BROKER_URL"))

    # -- SQS, where CELERY_BROKER_URL names it
    sqs_region: str = Field("", validation_alias=_named("AGENTFARM_SQS_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"))

    #: Of all queues of one farm. Two farms in one account and region need two.
    sqs_prefix: str = Field(
        "agentfarm-", pattern=r"^[A-Za-z0-9_-]{1,20}$", validation_alias=_named("AGENTFARM_SQS_PREFIX")
    )

    # -- web
    host: str = Field("127.0.0.1", validation_alias=_named("AGENTFARM_HOST", "HOST"))
    port: int = Field(2024, ge=0, le=65535, validation_alias=_named("PORT", "AGENTFARM_PORT"))
    public_url: str = Field("", validation_alias=_named("AGENTFARM_PUBLIC_URL"))
    secret_key: SecretStr = Field(validation_alias=_named("AGENTFARM_SECRET_KEY", "DJANGO_SECRET_KEY"))
    key_pepper: SecretStr | None = Field(None, validation_alias=_named("AGENTFARM_KEY_PEPPER"))
    debug: bool = Field(False, validation_alias=_named("AGENTFARM_DEBUG"))
    anonymous_tenant: str = Field("", validation_alias=_named("ANONYMOUS_TENANT"))
    cors_allow_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",), validation_alias=_named("CORS_ALLOW_ORIGINS")
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "[::1]"), validation_alias=_named("AGENTFARM_ALLOWED_HOSTS")
    )
    max_body_bytes: int = Field(8 << 20, ge=1024, validation_alias=_named("AGENTFARM_MAX_BODY_BYTES"))
    max_json_depth: int = Field(100, ge=8, le=200, validation_alias=_named("AGENTFARM_MAX_JSON_DEPTH"))

    # -- graphs
    graphs_config: Path = Field(Path("langgraph.json"), validation_alias=_named("AGENTFARM_CONFIG", "LANGGRAPH_CONFIG"))
    default_queue: str = Field("io", validation_alias=_named("AGENTFARM_DEFAULT_QUEUE"))
    extra_queues: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias=_named("AGENTFARM_QUEUES"))

    #: Of the graphs that this process has. Without '_', which stands for a dot in queues' names (queueing/names.py).
    build: str = Field("", pattern=r"^([a-z0-9][a-z0-9.-]{0,19})?$", validation_alias=_named("AGENTFARM_BUILD"))

    # -- store
    store_max_value_bytes: int = Field(
        1 << 20, ge=1024, le=64 << 20, validation_alias=_named("AGENTFARM_STORE_MAX_VALUE_BYTES")
    )

    # -- leases and healing. Measured: research on one machine, docs/decisions/0003
    lease_seconds: float = Field(15.0, gt=0, validation_alias=_named("AGENTFARM_LEASE_SECONDS"))
    heartbeat_seconds: float = Field(1.0, gt=0, validation_alias=_named("AGENTFARM_HEARTBEAT_SECONDS"))
    heal_seconds: float = Field(1.0, gt=0, validation_alias=_named("AGENTFARM_HEAL_SECONDS"))
    lost_message_seconds: float = Field(3.0, gt=0, validation_alias=_named("AGENTFARM_LOST_MESSAGE_SECONDS"))
    max_state_bytes: int = Field(256 << 20, ge=1 << 20, validation_alias=_named("AGENTFARM_MAX_STATE_BYTES"))
    max_fan_out: int = Field(10_000, ge=1, validation_alias=_named("AGENTFARM_MAX_FAN_OUT"))
    max_attempts: int = Field(6, ge=1, validation_alias=_named("AGENTFARM_MAX_ATTEMPTS"))
    health_file: Path | None = Field(None, validation_alias=_named("AGENTFARM_HEALTH_FILE"))
    start_seconds: float = Field(60.0, ge=0, validation_alias=_named("AGENTFARM_START_SECONDS"))
    drain_seconds: float = Field(20.0, ge=0, validation_alias=_named("AGENTFARM_DRAIN_SECONDS"))
    retry_message_seconds: float = Field(2.0, ge=0, validation_alias=_named("AGENTFARM_RETRY_MESSAGE_SECONDS"))

    # -- going ahead. Measured: with 10 nodes or 1 s a message, a worker executes twice as many nodes a second
    run_ahead_nodes: int = Field(10, ge=0, le=MAX_AHEAD_NODES, validation_alias=_named("AGENTFARM_RUN_AHEAD_NODES"))
    run_ahead_seconds: float = Field(
        1.0, gt=0, le=MAX_AHEAD_SECONDS, validation_alias=_named("AGENTFARM_RUN_AHEAD_SECONDS")
    )

    # -- waves (docs/decisions/0014). Below 0: each node is sent for
    wave_messages: int = Field(5, ge=-1, le=100, validation_alias=_named("AGENTFARM_WAVE_MESSAGES"))

    # -- streams
    stream_ttl_seconds: int = Field(3600, ge=1, validation_alias=_named("RESUMABLE_STREAM_TTL_SECONDS"))
    stream_max_events: int = Field(100_000, ge=1000, validation_alias=_named("AGENTFARM_STREAM_MAX_EVENTS"))
    stream_heartbeat_seconds: float = Field(5.0, gt=0, validation_alias=_named("AGENTFARM_STREAM_HEARTBEAT_SECONDS"))

    # -- the Redis that moves runs (persistence "redis"); that of REDIS_URL where this is not given
    redis_tier_url: SecretStr | None = Field(None, validation_alias=_named("AGENTFARM_REDIS_TIER_URL"))

    # -- node cache
    node_cache_max_bytes: int = Field(1 << 20, ge=0, validation_alias=_named("AGENTFARM_NODE_CACHE_MAX_BYTES"))
    node_cache_max_seconds: int = Field(
        7 * 24 * 3600, ge=1, validation_alias=_named("AGENTFARM_NODE_CACHE_MAX_SECONDS")
    )

    # -- pools
    database_pool_size: int = Field(16, ge=1, validation_alias=_named("AGENTFARM_DATABASE_POOL_SIZE"))
    connect_timeout_seconds: float = Field(5.0, gt=0, validation_alias=_named("AGENTFARM_CONNECT_TIMEOUT_SECONDS"))

    # -- flower
    flower_user: str = Field("", validation_alias=_named("FLOWER_USER"))
    flower_password: SecretStr = Field(SecretStr(""), validation_alias=_named("FLOWER_PASSWORD"))
    flower_url: str = Field("http://127.0.0.1:5555", validation_alias=_named("FLOWER_URL"))
    task_events: bool = Field(True, validation_alias=_named("AGENTFARM_TASK_EVENTS"))

    # -- logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias=_named("LOG_LEVEL"))
    log_json: bool = Field(False, validation_alias=_named("LOG_JSON"))

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        lists = ("CORS_ALLOW_ORIGINS", "AGENTFARM_ALLOWED_HOSTS", "AGENTFARM_QUEUES")
        split = {
            k: tuple(filter(None, (part.strip() for part in v.split(","))))
            for k, v in values.items()
            if k in lists and isinstance(v, str)
        }
        return {**values, **split}

    @model_validator(mode="after")
    def _urls_have_schemes(self) -> Self:
        _check_url(
            "DATABASE_URL", self.database_url, ("postgresql", "postgres"), "postgresql://farm_app:…@localhost/agentfarm"
        )
        _check_url("REDIS_URL", self.redis_url, ("redis", "rediss", "valkey", "sentinel"), "redis://localhost:6379/0")
        _check_url(
            "CELERY_BROKER_URL",
            self.broker_url,
            ("amqp", "amqps", "redis", "rediss", "sentinel", "sqs"),
            "redis://localhost:6379/1",
        )
        _check_sentinels("REDIS_URL", self.redis_url)
        _check_sentinels("CELERY_BROKER_URL", self.broker_url)
        if self.redis_tier_url is not None:
            name, schemes = "AGENTFARM_REDIS_TIER_URL", ("redis", "rediss", "valkey", "sentinel", "cluster", "clusters")
            _check_url(name, self.redis_tier_url, schemes, "redis://localhost:6379/2")
            _check_sentinels(name, self.redis_tier_url)
            _check_cluster(name, self.redis_tier_url)
        if self.broker_kind == "sqs":
            _check_sqs_url(self.broker_url)
        return self

    @model_validator(mode="after")
    def _leases_outlast_missed_beats(self) -> Self:
        if self.heartbeat_seconds * 3 > self.lease_seconds:
            raise ValueError(
                f"AGENTFARM_HEARTBEAT_SECONDS={self.heartbeat_seconds:g} is more than a third of "
                f"AGENTFARM_LEASE_SECONDS={self.lease_seconds:g}: a worker that is late once or twice would lose all "
                "that it executes."
            )
        return self

    @model_validator(mode="after")
    def _anonymous_only_on_loopback(self) -> Self:
        if self.anonymous_tenant and not is_loopback(self.host):
            raise ValueError(
                f"ANONYMOUS_TENANT={self.anonymous_tenant!r} lets requests without a key in, and AGENTFARM_HOST is "
                f"{self.host!r}, which others can reach. Serve on 127.0.0.1, or unset ANONYMOUS_TENANT."
            )
        return self

    @property
    def broker_kind(self) -> BrokerKind:
        scheme = urlsplit(self.broker_url.get_secret_value()).scheme
        return "amqp" if scheme.startswith("amqp") else "sqs" if scheme == "sqs" else "redis"

    @property
    def pepper(self) -> bytes:
        """What API keys are hashed with. Changing it revokes all keys at once."""
        return (self.key_pepper or self.secret_key).get_secret_value().encode()

    @property
    def ops_url(self) -> SecretStr:
        """The healer's connection. It needs a role that sees ids of all tenants: farm_ops."""
        return self.database_ops_url or self.database_url


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def redis_py_url(url: str) -> str:
    """Valkey speaks Redis, and redis-py knows its own schemes only."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.replace('valkeys', 'rediss').replace('valkey', 'redis')}://{rest}"


REDIS_PORT = 6379
SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who tells which Redis of a service takes writes now: sentinel://user:password@one:26379,two:26379/service/0

    username, password          of that Redis
    own_username, own_password  of the Sentinels, where they ask for one: ?username=…&password=…
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    database: int
    username: str | None
    password: str | None
    own_username: str | None
    own_password: str | None

    @classmethod
    def parse(cls, url: str) -> "Sentinels | None":
        """None for a URL of another kind. Raises ValueError, which repeats nothing of the URL."""
        parts = urlsplit(url)
        if parts.scheme != "sentinel":
            return None
        service, _, database = parts.path.strip("/").partition("/")
        own = parse_qs(parts.query)
        if not service or not (database or "0").isdecimal() or set(own) - {"username", "password"}:
            raise ValueError("a service's name and a database's number must follow the hosts")
        return cls(
            hosts=_hosts(parts.netloc, SENTINEL_PORT),
            service=unquote(service),
            database=int(database or 0),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            own_username=own.get("username", [None])[0],
            own_password=own.get("password", [None])[0],
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """Some servers of a Redis cluster, who tell of the others: cluster://user:password@one:6379,two:6379

    clusters:// where they are spoken to in TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    is_encrypted: bool

    @classmethod
    def parse(cls, url: str) -> "Cluster | None":
        """None for a URL of another kind. Raises ValueError, which repeats nothing of the URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("cluster", "clusters"):
            return None
        if parts.path.strip("/") not in ("", "0") or parts.query:
            raise ValueError("a cluster has one database, and nothing follows the hosts")
        return cls(
            hosts=_hosts(parts.netloc, REDIS_PORT),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            is_encrypted=parts.scheme == "clusters",
        )

    def url_of(self, host: str, port: int) -> str:
        """Of one of its servers."""
        login = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@" if self.password else ""
        place = f"[{host}]" if ":" in host else host
        return f"{'rediss' if self.is_encrypted else 'redis'}://{login}{place}:{port}/0"


def _hosts(netloc: str, default_port: int) -> tuple[tuple[str, int], ...]:
    return tuple(_host_and_port(one, default_port) for one in netloc.rpartition("@")[2].split(","))


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port == 0:
        raise ValueError("a host is missing, or a port is none")
    return parts.hostname, parts.port or default_port


def _check_sentinels(name: str, url: SecretStr) -> None:
    try:
        Sentinels.parse(url.get_secret_value())
    except ValueError:
        raise ValueError(
            f"{name} is no address of Sentinels. It has the form "
            "'sentinel://:password@one:26379,two:26379,three:26379/service/0', with ',', '/' and '@' of the password "
            "as %2C, %2F and %40."
        ) from None


def _check_cluster(name: str, url: SecretStr) -> None:
    try:
        Cluster.parse(url.get_secret_value())
    except ValueError:
        raise ValueError(
            f"{name} is no address of a Redis cluster. It has the form 'cluster://:password@one:6379,two:6379', with "
            "',', '/' and '@' of the password as %2C, %2F and %40."
        ) from None


def _check_url(name: str, url: SecretStr, schemes: tuple[str, ...], example: str) -> None:
    if urlsplit(url.get_secret_value()).scheme not in schemes:
        # The value may hold a password: the scheme alone is repeated.
        found = url.get_secret_value().split(":", 1)[0]
        raise ValueError(
            f"{name} begins with {found!r}; it needs one of {', '.join(schemes)}, for example {example!r}."
        )


def _check_sqs_url(url: SecretStr) -> None:
    """A secret key often has '/' and '+', which end a URL's password. Nothing of it is repeated."""
    try:
        parts = urlsplit(url.get_secret_value())
        is_whole = parts.port != 0 and parts.path in ("", "/") and not parts.query
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError(
            "CELERY_BROKER_URL is not an address of SQS. Say 'sqs://' and leave the keys to AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY or a role, or 'sqs://key:secret@host:port' for a server of your own, with '/' and "
            "'+' of the secret as %2F and %2B."
        )


@cache
def settings() -> Settings:
    """The settings of this process. Raises Misconfigured, which names every variable that is wrong at once."""
    try:
        return Settings()
    except ValidationError as error:
        raise Misconfigured(render_problems(error)) from None


def render_problems(error: ValidationError) -> str:
    """One line a problem, with the variable's name and without its value."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        text = problem["msg"].removeprefix("Value error, ")
        missing = problem["type"] == "missing"
        lines.append(f"{name} is not set." if missing else f"{name + ': ' if name else ''}{text}")
    return "AgentFarm cannot start:\n" + "\n".join(f"  - {line}" for line in lines)


def forget_settings() -> None:
    """Read the environment again at the next call: for tests, which change it."""
    settings.cache_clear()


def strict_msgpack() -> None:
    """LangGraph reads this once, at import: call before the first `import langgraph`."""
    os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
