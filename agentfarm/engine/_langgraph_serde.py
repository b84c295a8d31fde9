"""Every private name of LangGraph's serializer that we stand on: one page to read at each upgrade.

Only persistence/serde.py and persistence/state_types.py import this. A release that renames one of these fails here,
at import, and not in the middle of a run. Written against langgraph 1.2.24, langgraph-checkpoint 4.3.2.
"""

from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, Final, Literal, cast

from langgraph._internal._constants import ERROR, INTERRUPT, RESUME
from langgraph._internal._constants import RETURN as RESULT
from langgraph._internal._constants import TASKS as SENDS
from langgraph._internal._serde import _collect_from_type, _safe_get_type_hints
from langgraph.checkpoint.serde import jsonplus as _stock
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_TYPES, STRICT_MSGPACK_ENABLED
from langgraph.checkpoint.serde.types import _DeltaSnapshot as DeltaSnapshot

#: Codes of the msgpack extensions, as stock writes them.
SINGLE: Final = _stock.EXT_CONSTRUCTOR_SINGLE_ARG
POSITIONAL: Final = _stock.EXT_CONSTRUCTOR_POS_ARGS
KEYWORDS: Final = _stock.EXT_CONSTRUCTOR_KW_ARGS
METHOD: Final = _stock.EXT_METHOD_SINGLE_ARG
PYDANTIC_1: Final = _stock.EXT_PYDANTIC_V1
PYDANTIC_2: Final = _stock.EXT_PYDANTIC_V2
NUMPY: Final = _stock.EXT_NUMPY_ARRAY
DELTA: Final = _stock.EXT_DELTA_SNAPSHOT

#: ormsgpack's options of the stock writer.
OPTIONS: Final = _stock._option

Allowlist = set[tuple[str, ...]] | Literal[True] | None

send_from_args: Callable[[list[Any]], Any] = _stock._send_from_args
payload_instead: Callable[[Any, Exception], Any] = _stock._reconstruction_fallback
read_numpy: Callable[[int, bytes], Any] = _stock._msgpack_ext_hook
type_hints: Callable[[Any], Mapping[str, Any]] = _safe_get_type_hints


def normalize_allowlist(names: Iterable[tuple[str, ...] | type]) -> set[tuple[str, ...]]:
    return _stock._normalize_module_keys(tuple(names))


def stock_writer(pack: Callable[[Any], bytes]) -> Callable[[Any], Any]:
    """Stock's `default` for ormsgpack, with what it nests packed by `pack`.

    A second function over stock's own code: nothing is patched for the rest of the process.
    """
    code = _stock._msgpack_default.__code__
    if "_msgpack_enc" not in code.co_names:
        raise ImportError("langgraph.checkpoint.serde.jsonplus._msgpack_default does not nest by _msgpack_enc any more")
    return FunctionType(code, {**_stock._msgpack_default.__globals__, "_msgpack_enc": pack})


def stock_judges(allowed: Allowlist) -> tuple[Callable[[str, str], bool], Callable[[str, str, str], bool]]:
    """Stock's own verdicts on what a stored value may call: (module, name) and (module, name, method).

    They also report what they refuse, to the log and to langgraph.checkpoint.serde.event_hooks.
    """
    hook = cast(FunctionType, _stock._create_msgpack_ext_hook(allowed))
    cells = dict(zip(hook.__code__.co_freevars, hook.__closure__ or (), strict=True))
    return cells["_check_allowed"].cell_contents, cells["_check_allowed_method"].cell_contents


def classes_in(schema: object) -> set[Any]:
    """What stock's walk of a schema meets: TypedDicts, models, dataclasses, enums and the types of their fields."""
    seen: set[Any] = set()
    _collect_from_type(schema, set(), seen, set())
    return seen


# Both are looked up by name inside stock's closures: fail now if they have moved.
stock_judges(None)
stock_writer(bytes)

__all__ = [
    "DELTA",
    "ERROR",
    "INTERRUPT",
    "KEYWORDS",
    "METHOD",
    "NUMPY",
    "OPTIONS",
    "POSITIONAL",
    "PYDANTIC_1",
    "PYDANTIC_2",
    "RESULT",
    "RESUME",
    "SAFE_MSGPACK_TYPES",
    "SENDS",
    "SINGLE",
    "STRICT_MSGPACK_ENABLED",
    "Allowlist",
    "DeltaSnapshot",
    "classes_in",
    "normalize_allowlist",
    "payload_instead",
    "read_numpy",
    "send_from_args",
    "stock_judges",
    "stock_writer",
    "type_hints",
]
