"""Where the web listens, how it is reached, by which names; and what is refused before anything starts."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentfarm.errors import Misconfigured
from agentfarm.local import farm
from agentfarm.local.address import Address, choose_address, choose_hosts
from agentfarm.local.processes import free_port
from agentfarm.local.state import State, locked


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with locked(tmp_path) as state:
        yield state


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:2024"),
        ("::", "http://[::1]:2024"),
        ("127.0.0.1", "http://127.0.0.1:2024"),
        ("10.1.2.3", "http://10.1.2.3:2024"),
        ("2001:db8::7", "http://[2001:db8::7]:2024"),
    ],
)
def test_the_url_is_one_that_can_be_asked_also_where_the_web_listens_on_every_address(host: str, url: str) -> None:
    assert Address(host, 2024, 5555).url == url


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_where_others_can_come_in_the_machine_answers_to_its_own_names(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk")
    addresses = [(2, 1, 6, "", ("10.1.2.3", 0)), (10, 1, 6, "", ("fe80::7%eth0", 0, 0, 2))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, port: addresses if name == "Desk" else [])

    hosts = choose_hosts(Address(host, 2024, 5555), "").split(",")

    assert {"localhost", "127.0.0.1", "[::1]", "desk", "10.1.2.3", "[fe80::7]"} <= set(hosts)
    assert "*" not in hosts
    assert host not in {"0.0.0.0", "::"} & set(hosts)


def test_a_machine_whose_name_nobody_resolves_still_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, port: None) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    assert socket.gethostname().lower() in choose_hosts(Address("0.0.0.0", 2024, 5555), "").split(",")


def test_on_loopback_the_web_answers_to_loopback_alone() -> None:
    assert choose_hosts(Address("127.0.0.1", 2024, 5555), "") == "localhost,127.0.0.1,[::1]"


@pytest.mark.parametrize(
    ("given", "hosts"),
    [("farm.example", "farm.example,127.0.0.1"), ("*", "*"), (" a.example , 127.0.0.1", "a.example,127.0.0.1")],
)
def test_names_of_ones_own_stay_and_our_own_question_is_answered(given: str, hosts: str) -> None:
    assert choose_hosts(Address("0.0.0.0", 2024, 5555), given) == hosts


def test_a_taken_port_is_said_to_be_taken(state: State) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(Misconfigured, match=rf"Port {port} is taken.*PORT={port + 1}"):
            choose_address(state, "127.0.0.1", port, any_port=False)
        assert choose_address(state, "127.0.0.1", port, any_port=True).port != port


def test_a_port_that_only_root_may_have_is_not_called_taken(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidding(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "socket", Forbidding)

    with pytest.raises(Misconfigured, match=r"may not listen on port 80.*PORT=2024"):
        choose_address(state, "127.0.0.1", 80, any_port=True)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("999.1.1.1", "999.1.1.1 is not an address: "),
        ("203.0.113.77", "203.0.113.77 is not an address of this machine"),
    ],
)
def test_a_wrong_address_is_not_called_a_taken_port(state: State, host: str, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        choose_address(state, host, free_port(), any_port=True)


def test_port_0_is_a_free_one(state: State) -> None:
    assert choose_address(state, "127.0.0.1", 0, any_port=False).port > 0


def test_an_address_in_the_brackets_of_a_url_is_understood(state: State) -> None:
    try:
        address = choose_address(state, "[::1]", 0, any_port=False)
    except Misconfigured:
        pytest.skip("no IPv6 here")

    assert address.url == f"http://[::1]:{address.port}"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "ANONYMOUS_TENANT"):
        monkeypatch.delenv(name, raising=False)
    return {}


def test_what_the_project_itself_has_chosen_is_accepted(given: dict[str, str]) -> None:
    farm.check_choices(farm.OWN_CONFIG, "0.0.0.0", None, given)


def test_requests_without_a_key_from_everywhere_are_refused_before_anything_starts(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONYMOUS_TENANT", "demo")

    with pytest.raises(Misconfigured, match="ANONYMOUS_TENANT='demo' lets requests without a key in"):
        farm.check_choices(farm.OWN_CONFIG, "0.0.0.0", None, given)
    farm.check_choices(farm.OWN_CONFIG, "127.0.0.1", None, given)


def test_a_setting_that_is_wrong_is_refused_before_anything_starts(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "LOUD")

    with pytest.raises(Misconfigured, match="LOG_LEVEL"):
        farm.check_choices(farm.OWN_CONFIG, "127.0.0.1", None, given)


def test_a_config_that_is_not_there_is_refused_before_anything_starts(given: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="does not exist"):
        farm.check_choices(tmp_path / "langgraph.json", "127.0.0.1", None, given)
