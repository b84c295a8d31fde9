"""Settings: typed, read once, refused at start by name."""

import os
from collections.abc import Iterator

import pytest

from agentfarm.conf import Cluster, Sentinels, forget_settings, is_loopback, settings
from agentfarm.errors import Misconfigured

GOOD = {
    "DATABASE_URL": "postgresql://farm_app:secret-pw@127.0.0.1:1/farm",
    "REDIS_URL": "redis://127.0.0.1:2/0",
    "CELERY_BROKER_URL": "amqp://guest:guest@127.0.0.1:3//",
    "AGENTFARM_SECRET_KEY": "k" * 50,
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in [*os.environ]:
        if name.startswith(("AGENTFARM_", "DATABASE_", "REDIS_", "CELERY_", "ANONYMOUS")) or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    forget_settings()
    yield monkeypatch
    forget_settings()


def test_the_defaults_are_the_ecosystems(environment: pytest.MonkeyPatch) -> None:
    assert settings().port == 2024
    assert settings().host == "127.0.0.1"
    assert settings().broker_kind == "amqp"
    assert settings() is settings()


def test_lists_are_split_at_commas(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AGENTFARM_QUEUES", "gpu, slow,")

    assert settings().extra_queues == ("gpu", "slow")


def test_every_wrong_variable_is_named_at_once_and_no_value_is_shown(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("REDIS_URL")
    environment.setenv("PORT", "99999999")

    with pytest.raises(Misconfigured) as refused:
        settings()

    assert "REDIS_URL is not set" in str(refused.value)
    assert "PORT" in str(refused.value)
    assert "secret-pw" not in str(refused.value)


def test_an_address_without_a_scheme_is_refused_with_an_example(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CELERY_BROKER_URL", "rabbit//localhost")

    with pytest.raises(Misconfigured, match=r"CELERY_BROKER_URL.*for example"):
        settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "farm.example"])
def test_the_anonymous_tenant_is_for_loopback_only(environment: pytest.MonkeyPatch, host: str) -> None:
    environment.setenv("ANONYMOUS_TENANT", "demo")
    environment.setenv("AGENTFARM_HOST", host)

    with pytest.raises(Misconfigured, match="ANONYMOUS_TENANT"):
        settings()


def test_the_anonymous_tenant_is_let_in_on_loopback(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ANONYMOUS_TENANT", "demo")
    environment.setenv("AGENTFARM_HOST", "127.0.0.1")

    assert settings().anonymous_tenant == "demo"


def test_loopback_is_told_from_the_rest() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.8.8.8", "::1", "[::1]")] == [True] * 4
    assert not any(is_loopback(host) for host in ("0.0.0.0", "192.168.0.1", "example"))


def test_an_address_of_sentinels_is_read(environment: pytest.MonkeyPatch) -> None:
    read = Sentinels.parse("sentinel://me:a%40b@one,[::1]:7/farm/3?password=of-theirs")

    assert read == Sentinels(
        (("one", 26379), ("::1", 7)), "farm", 3, "me", "a@b", own_username=None, own_password="of-theirs"
    )
    assert Sentinels.parse("redis://one:26379/0") is None


def test_an_address_of_a_cluster_is_read(environment: pytest.MonkeyPatch) -> None:
    read = Cluster.parse("clusters://me:a%40b@one,[::1]:7")

    assert read == Cluster((("one", 6379), ("::1", 7)), "me", "a@b", is_encrypted=True)
    assert read.url_of("::1", 7) == "rediss://me:a%40b@[::1]:7/0"
    assert Cluster.parse("redis://one:6379/0") is None


@pytest.mark.parametrize(
    "url",
    [
        "cluster://:secret-pw@",
        "cluster://:secret-pw@one:port",
        "cluster://:secret-pw@one/3",
        "cluster://:secret-pw@one?password=secret-pw",
        "mysql://:secret-pw@one",
    ],
)
def test_a_wrong_address_of_a_cluster_is_named_and_not_shown(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("AGENTFARM_REDIS_TIER_URL", url)

    with pytest.raises(Misconfigured, match="AGENTFARM_REDIS_TIER_URL") as refused:
        settings()

    assert "secret-pw" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://:secret-pw@one:26379",
        "sentinel://:secret-pw@one:port/farm",
        "sentinel://:secret-pw@,/farm",
        "sentinel://:secret-pw@one/farm/zero",
        "sentinel://:secret-pw@one/farm?pasword=secret-pw",
    ],
)
@pytest.mark.parametrize("name", ["REDIS_URL", "CELERY_BROKER_URL", "AGENTFARM_REDIS_TIER_URL"])
def test_a_wrong_address_of_sentinels_is_named_and_not_shown(
    environment: pytest.MonkeyPatch, name: str, url: str
) -> None:
    environment.setenv(name, url)

    with pytest.raises(Misconfigured, match=name) as refused:
        settings()

    assert "secret-pw" not in str(refused.value)


def test_a_lease_that_one_late_beat_would_end_is_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AGENTFARM_LEASE_SECONDS", "4")
    environment.setenv("AGENTFARM_HEARTBEAT_SECONDS", "2")

    with pytest.raises(Misconfigured, match=r"AGENTFARM_HEARTBEAT_SECONDS=2 .* AGENTFARM_LEASE_SECONDS=4"):
        settings()
