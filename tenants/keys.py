"""API keys: `af_<id>_<secret>`. The id finds the row, the secret proves it; only an HMAC of the whole is kept.

The secret has 256 random bits, so a plain HMAC is right and takes 1.4 µs where a password's hash takes 208 ms. It is
keyed with a pepper that the database does not have: whoever reads the table can neither use nor forge a key.
Knows no Django and no database: who builds a KeyRing hands it the two look-ups.
"""

import hashlib
import hmac
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from agentfarm.ids import new_id
from agentfarm.tenancy import Tenant

K = TypeVar("K")
V = TypeVar("V")

SCHEME = "af"
SECRET_BYTES = 32

#: Longer than any key of ours; what is longer is refused unread.
MAX_KEY_CHARACTERS = 128

#: How long a look-up may be believed, so that a revoked key is dead within a second.
CACHE_SECONDS = 0.9

#: Ids that are remembered at once, unknown ones too: whoever guesses ids fills this and no more.
CACHE_SIZE = 4096

#: `last_used_at` is a sample: written at most this often a key and process.
USED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `text` is shown once and kept nowhere: not in its repr either."""

    id: UUID
    text: str = field(repr=False)
    hash: bytes = field(repr=False)

    @property
    def prefix(self) -> str:
        """By which its owner recognises it in a list: af_ and the 12 digits of the moment it was made."""
        return self.text[: len(SCHEME) + 1 + 12]


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that is not revoked, of a tenant that is active."""

    hash: bytes = field(repr=False)
    tenant: Tenant


def make_key(pepper: bytes) -> NewKey:
    """A new key. Its id is a UUIDv7."""
    key_id = new_id()
    secret = urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).decode().rstrip("=")
    text = f"{SCHEME}_{key_id.hex}_{secret}"
    return NewKey(id=key_id, text=text, hash=hash_key(text, pepper))


def hash_key(text: str, pepper: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes."""
    return hmac.digest(pepper, text.encode(), hashlib.sha256)


def parse_key_id(raw: str) -> UUID | None:
    """The id in a key's text, or None for what cannot be a key."""
    if len(raw) > MAX_KEY_CHARACTERS or not raw.isascii():
        return None
    scheme, _, rest = raw.partition("_")
    key_id, _, secret = rest.partition("_")
    if scheme != SCHEME or len(key_id) != 32 or not secret:
        return None
    try:
        return UUID(hex=key_id)
    except ValueError:
        return None


def verify_key(raw: str, known: bytes | None, pepper: bytes) -> bool:
    """Whether the hash of this key is `known`. Takes the same time when there is none."""
    return hmac.compare_digest(hash_key(raw, pepper), known or _NOBODY) and known is not None


#: Compared with where there is no such key, so that an id which exists cannot be told by the time of the answer.
_NOBODY = bytes(32)


class KeyRing:
    """flow/farm.Keys: whose key is this. For any number of threads.

    look_up       the key of an id, or None for an unknown, revoked or inactive one; raises StoreUnavailable
    find_tenant   the active tenant of a slug, or None; raises StoreUnavailable
    mark_used     told the id of a key that was used, at most once in USED_SECONDS
    anonymous     slug of the tenant of requests without a key; "" where a key is needed
    """

    def __init__(
        self,
        pepper: bytes,
        look_up: Callable[[UUID], FoundKey | None],
        find_tenant: Callable[[str], Tenant | None],
        *,
        mark_used: Callable[[UUID], None] | None = None,
        anonymous: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pepper = pepper
        self._keys = _Memory(look_up, clock)
        self._tenants = _Memory(find_tenant, clock)
        self._anonymous = anonymous
        self._mark_used = mark_used
        self._used: dict[UUID, float] = {}
        self._clock = clock

    def find(self, raw_key: str) -> Tenant | None:
        """Whose key this is; None for a wrong or revoked one. Raises StoreUnavailable."""
        key_id = parse_key_id(raw_key)
        found = self._keys.get(key_id) if key_id is not None else None
        if not verify_key(raw_key, found.hash if found else None, self._pepper) or found is None or key_id is None:
            return None
        self._sample_use(key_id)
        return found.tenant

    def anonymous(self) -> Tenant | None:
        """The tenant of requests without a key; None where a key is needed. Raises StoreUnavailable."""
        return self._tenants.get(self._anonymous) if self._anonymous else None

    def _sample_use(self, key_id: UUID) -> None:
        if self._mark_used is None:
            return
        now = self._clock()
        if now - self._used.get(key_id, float("-inf")) < USED_SECONDS:
            return
        if len(self._used) >= CACHE_SIZE:
            self._used.clear()
        self._used[key_id] = now
        self._mark_used(key_id)


class _Memory(Generic[K, V]):
    """Answers of a look-up, believed for CACHE_SECONDS from before it was asked."""

    def __init__(self, look_up: Callable[[K], V | None], clock: Callable[[], float]) -> None:
        self._look_up = look_up
        self._clock = clock
        self._answers: dict[K, tuple[V | None, float]] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        asked_at = self._clock()
        known = self._answers.get(key)
        if known is not None and asked_at - known[1] < CACHE_SECONDS:
            return known[0]
        answer = self._look_up(key)
        with self._lock:
            if len(self._answers) >= CACHE_SIZE:
                self._answers.clear()
            self._answers[key] = (answer, asked_at)
        return answer
