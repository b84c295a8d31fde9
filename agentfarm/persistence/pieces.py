"""A large value in pieces, so that what grows at its end is stored as what was added.

`add_messages` and its like make a new value of the old one and a few more: saved whole, a conversation of 10,000
messages is written anew by each step. Here the new version refers to the blobs of the old one, and to a new blob with
what follows them. docs/decisions/0016 has the reasons.

Whatever msgpack writes in front (how many elements there are) changes with each version: it stands in the reference.
Each piece is more than twice as long as the next, as in a log-structured merge: a new one takes in those before it that
are not. So a value of n bytes has at most log2(n) of them. A byte whose piece is taken in is in one half as long again
at least: of additions of one length each is written some log(number of them) times.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

#: How a checkpoint's body tells where a value is: the key of the one blob that it is, or [what stands in front, how
#: many bytes of the first blob are left out, keys of the blobs].
Ref = str | list[Any]

#: Smaller values are stored whole.
MIN_BYTES: Final = 4096

#: By the first byte of an array, a map or a text in msgpack: how many bytes stand in front of what it holds.
_FRONTS: Final = dict.fromkeys(range(0x80, 0xC0), 1) | {
    0xD9: 2, 0xDA: 3, 0xDB: 5, 0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5,
}  # fmt: skip


def keys_of(ref: Ref) -> Sequence[str]:
    """Of the blobs, in their order."""
    return (ref,) if isinstance(ref, str) else ref[2:]


def join(ref: Ref, blobs: Mapping[str, bytes]) -> bytes:
    """The value's bytes."""
    if isinstance(ref, str):
        return blobs[ref]
    front, left_out, first, *others = ref
    return b"".join([front, blobs[first][left_out:], *(blobs[key] for key in others)])


def cut(data: bytes, key: str, before: Ref | None, blobs: Mapping[str, bytes]) -> tuple[Ref, dict[str, bytes]]:
    """Where a new version of a value is, and which blobs are new.

    data    its bytes: one that says how it is serialised, then msgpack
    key     of this version; no other has it
    before  where the version is that it may have grown from
    blobs   as many of that one's as are at hand
    """
    if before is None or len(data) < MIN_BYTES or not (front := _front_of(data)):
        return key, {key: data}
    kept, at = _kept(data, front, before, blobs)
    while kept and kept[-1][1] <= 2 * (len(data) - at):
        at -= kept.pop()[1]
    if not kept:
        return key, {key: data}
    left_out = _left_out(before, blobs)
    ref = [data[:front], left_out, *(name for name, _ in kept)]
    if at == len(data):
        return ref, {}
    # Named by where it begins: what a version has from there on is the same whoever cuts it, and however.
    tail = f"{key}@{at - front}"
    return [*ref, tail], {tail: data[at:]}


def _kept(data: bytes, front: int, before: Ref, blobs: Mapping[str, bytes]) -> tuple[list[tuple[str, int]], int]:
    """The blobs with which the value begins, each with how many bytes it has of it; and where they end."""
    kept: list[tuple[str, int]] = []
    at, left_out = front, _left_out(before, blobs)
    for key in keys_of(before):
        blob = blobs.get(key)
        if blob is None:
            break
        piece = blob if kept else blob[left_out:]
        if not piece or not data.startswith(piece, at):
            break
        kept.append((key, len(piece)))
        at += len(piece)
    return kept, at


def _left_out(ref: Ref, blobs: Mapping[str, bytes]) -> int:
    return _front_of(blobs.get(ref, b"")) if isinstance(ref, str) else ref[1]


def _front_of(data: bytes) -> int:
    """How many bytes stand in front of what may grow; 0: it is of no kind that does."""
    if data[:1] != b"m":
        return 1 if data[:1] in (b"b", b"a") else 0  # bytes, as they are
    return 1 + front if (front := _FRONTS.get(data[1])) else 0
