"""The file in which `farm_setup` keeps the keys and the password that it made: its owner's alone, replaced whole."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agentfarm.errors import Misconfigured


@dataclass(slots=True)
class Secrets:
    """What was made so far. keys: by the tenant's slug."""

    keys: dict[str, str] = field(default_factory=dict, repr=False)
    admin_password: str | None = field(default=None, repr=False)


def read_secrets(path: Path) -> Secrets:
    """What an earlier call kept; nothing if there was none. Raises Misconfigured for a file that is not ours."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Secrets(keys=dict(kept["keys"]), admin_password=kept["admin_password"])
    except FileNotFoundError:
        return Secrets()
    except (ValueError, KeyError, TypeError) as error:
        raise Misconfigured(f"{path} is not a file that farm_setup wrote; move it away or name another.") from error


def write_secrets(path: Path, known: Secrets) -> None:
    """Replace the file whole: it is never half written, and never readable by others, not even for a moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(known), file)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
