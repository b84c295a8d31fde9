"""Where the web listens, how it is reached, and by which names: decided before anything starts."""

import errno
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from agentfarm.conf import is_loopback
from agentfarm.errors import Misconfigured
from agentfarm.local.processes import free_port, port_is_free
from agentfarm.local.state import State

DEFAULT_PORT = 2024
DEFAULT_FLOWER_PORT = 5555

#: As settings have them where nothing is given.
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

#: An address that means all of the machine's, and where one asks for what listens there.
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # named, not chosen

#: Of TEST-NET-1, which no route leads to: a datagram socket "connected" there tells our own address and sends nothing.
NOWHERE = ("192.0.2.1", 9)


@dataclass(frozen=True, slots=True)
class Address:
    """host: where the web listens, without brackets."""

    host: str
    port: int
    flower_port: int

    @property
    def reached_at(self) -> str:
        """The host to ask: nobody can be asked at 0.0.0.0 or ::, which mean every address of the machine."""
        return WILDCARDS.get(self.host, self.host)

    @property
    def url(self) -> str:
        return f"http://{in_url(self.reached_at)}:{self.port}"

    @property
    def flower_url(self) -> str:
        return f"http://127.0.0.1:{self.flower_port}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def choose_address(state: State, host: str, port: int | None, *, any_port: bool) -> Address:
    """Ports for the web and for Flower.

    port      the one asked for; None: 2024; 0: a free one
    any_port  take a free one where that is taken
    raises    Misconfigured, which tells a wrong address, a forbidden and a taken port apart and says what to do
    """
    host = host.strip("[]")
    wanted = DEFAULT_PORT if port is None else port
    try:
        _try_to_bind(host, wanted)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not any_port:
            raise Misconfigured(_explain(error, host, wanted)) from None
        wanted = free_port()
    wanted = wanted or free_port()
    flower = state.section("flower")
    known = int(flower.get("port", DEFAULT_FLOWER_PORT))
    flower["port"] = known if port_is_free(known) and known != wanted else free_port()
    state.save()
    return Address(host, wanted, flower["port"])


def choose_hosts(address: Address, given: str) -> str:
    """AGENTFARM_ALLOWED_HOSTS: the Host headers that the web answers, by comma.

    given  the operator's own list; what our own question and the printed URL say is added to it
    """
    named = [name.strip() for name in given.split(",") if name.strip()]
    own = in_url(address.reached_at)
    if named:
        return ",".join(named if own in named or "*" in named else [*named, own])
    names = [*LOOPBACK_NAMES, own]
    if not address.is_loopback:
        names += _names_of_this_machine()
    return ",".join(dict.fromkeys(names))


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _try_to_bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port whose last connections still linger counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _explain(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror):
        return f"{host} is not an address: `make run HOST=127.0.0.1`, or HOST=0.0.0.0 for others to reach it."
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken by another program. Choose another: `make run PORT={port + 1}`."
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"This user may not listen on port {port}. Choose one above 1023: `make run PORT={DEFAULT_PORT}`."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: `make run HOST=127.0.0.1`, or HOST=0.0.0.0 for all it has."
    return f"Cannot listen on {in_url(host)}:{port}: {error.strerror or type(error).__name__}. HOST and PORT choose."


def _names_of_this_machine() -> Iterator[str]:
    name = socket.gethostname()
    yield name.lower()
    try:
        for *_, address in socket.getaddrinfo(name, None):
            yield _plain(str(address[0]))
    except socket.gaierror:
        pass  # a name that nobody resolves is still what a client may write into its own hosts file
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Debian lets the name stand for 127.0.1.1: the address on the way out is the one that others use.
        try:
            probe.connect(NOWHERE)
        except OSError:
            return  # no network: nobody comes from there
        yield probe.getsockname()[0]


def _plain(address: str) -> str:
    return in_url(str(ipaddress.ip_address(address.partition("%")[0])))
