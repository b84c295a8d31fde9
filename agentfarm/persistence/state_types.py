"""The classes that a graph's state may be made of: what its serializer may write and call.

A class is known because the operator's graph names it, never because stored bytes do. Three places are looked at: the
schemas and channels; the modules in which the node functions were written, and what they call of their own package; and
what these functions close over (`create_agent` keeps its response format there). Only classes of data count: models,
dataclasses, attrs, named tuples, enums, exceptions, and subclasses of the built-in types of data.
"""

import dataclasses
import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from inspect import getattr_static
from itertools import islice
from types import FunctionType, MethodType
from typing import Any, is_typeddict

from langchain_core.runnables import Runnable
from pydantic import BaseModel
from pydantic.v1 import BaseModel as OldModel

from agentfarm.engine._langgraph_serde import classes_in, type_hints

#: How far to look into the closures of node functions: a node, its wrapper, its settings, the schema in them.
CLOSURE_DEPTH = 6

#: Elements of a list or dict in a closure that are looked at. It may be a table of data.
CLOSURE_WIDTH = 200

#: Where a runnable or a tool keeps the functions that it calls.
_FUNCTIONS = ("func", "afunc", "coroutine", "steps", "tools_by_name", "bound")

#: What a class of data may be made from.
_DATA = (
    *(BaseModel, OldModel, Enum, BaseException),
    *(str, int, float, bytes, list, dict, tuple, set, frozenset, deque),
)

#: Whose modules are full of classes that no state holds. A graph that puts one into its state says so in its schema.
_LIBRARIES = frozenset({"langgraph", "langchain", "langchain_core"})


def types_of(graph: Any) -> frozenset[type]:
    """Every class of data that the graph, its nodes or its subgraphs name.

    graph  a compiled Pregel; left unchanged
    """
    found = _from_schemas(graph) | _from_functions(graph)
    for _, subgraph in graph.get_subgraphs():
        found |= types_of(subgraph)
    return frozenset(cls for cls in found if isinstance(cls, type) and cls.__module__ not in ("builtins", "typing"))


def is_named_tuple(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")


def attributes_of(cls: type) -> list[tuple[str, str | None]] | None:
    """[(attribute, argument of the constructor or None)] of a class made by attrs; None for others."""
    made: Any = cls.__dict__.get("__attrs_attrs__")
    return None if made is None else [(one.name, one.alias if one.init else None) for one in made]


def is_data_class(cls: object) -> bool:
    if not isinstance(cls, type) or is_typeddict(cls):
        return False
    if issubclass(cls, _DATA) or dataclasses.is_dataclass(cls):
        return True
    return attributes_of(cls) is not None


# --------------------------------------------------------------------------- schemas


def _from_schemas(graph: Any) -> set[Any]:
    schemas: list[Any] = []
    if (builder := getattr(graph, "builder", None)) is not None:
        schemas += [builder.state_schema, builder.input_schema, builder.output_schema]
        schemas += [node.input_schema for node in builder.nodes.values()]
    for channel in graph.channels.values():
        schemas += [getattr(channel, "ValueType", None), getattr(channel, "UpdateType", None)]
    return _walk(schema for schema in schemas if schema is not None)


def _walk(schemas: Iterable[Any]) -> set[Any]:
    """Stock's walk, and what it does not enter: named tuples, attrs, models of pydantic.v1, and the subclasses that a
    field of a base class may hold."""
    seen: set[Any] = set()
    todo = list(schemas)
    while todo:
        new = {found for schema in todo for found in _hashable(classes_in(schema)) if found not in seen}
        seen |= new
        todo = [hint for cls in new if _is_not_entered(cls) for hint in type_hints(cls).values()]
        todo += [sub for cls in new if _is_model(cls) for sub in cls.__subclasses__() if sub not in seen]
    return seen


def _hashable(found: Iterable[Any]) -> Iterator[Any]:
    return (one for one in found if isinstance(one, type))


def _is_not_entered(cls: Any) -> bool:
    return is_named_tuple(cls) or issubclass(cls, OldModel) or attributes_of(cls) is not None


def _is_model(cls: Any) -> bool:
    return issubclass(cls, BaseModel | OldModel) and cls not in (BaseModel, OldModel)


# --------------------------------------------------------------------------- functions


def _from_functions(graph: Any) -> set[Any]:
    found: set[Any] = set()
    for node in graph.nodes.values():
        for reached in _reach(node.bound, CLOSURE_DEPTH, set()):
            found |= {reached} if isinstance(reached, type) else _own_classes(reached)
    return _walk(found)


def _own_classes(function: FunctionType) -> set[type]:
    """Classes of data in the function's module which were defined in the same package."""
    names = function.__globals__
    package = _package(names.get("__name__", ""))
    if package in _LIBRARIES:
        return set()
    return {value for value in list(names.values()) if is_data_class(value) and _package(value.__module__) == package}


def _package(module: str) -> str:
    return module.partition(".")[0]


def _reach(thing: Any, depth: int, seen: set[int]) -> Iterator[FunctionType | type]:
    """The functions behind a runnable, and the classes of data that they close over."""
    if depth < 0 or id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, type):
        if is_data_class(thing):
            yield thing
        return
    if isinstance(thing, FunctionType):
        yield thing
    for inner in _inside(thing):
        yield from _reach(inner, depth - 1, seen)


def _inside(thing: Any) -> Iterable[Any]:
    if isinstance(thing, FunctionType):
        beside = [*_cells(thing), *(thing.__defaults__ or ()), *vars(thing).values()]  # the last: what it wraps
        return [*beside, *_called(thing)]
    if isinstance(thing, MethodType):
        return (thing.__func__, thing.__self__)
    if isinstance(thing, functools.partial):
        return (thing.func, *thing.args, *thing.keywords.values())
    if isinstance(thing, Mapping):
        return list(islice(thing.values(), CLOSURE_WIDTH))
    if isinstance(thing, list | tuple | set | frozenset):
        return list(islice(thing, CLOSURE_WIDTH))
    if isinstance(thing, Runnable):
        return [value for name in _FUNCTIONS if (value := getattr(thing, name, None)) is not None]
    if (wrapped := getattr_static(thing, "__wrapped__", None)) is not None:  # a @task, and whatever else decorates
        return (wrapped,)
    if dataclasses.is_dataclass(thing):
        return [getattr(thing, field.name, None) for field in dataclasses.fields(thing)]
    return ()


def _called(function: FunctionType) -> Iterator[Any]:
    """What it may call of its own package: functions, and what decorates one."""
    names, package = function.__globals__, _package(function.__module__ or "")
    if package in _LIBRARIES:
        return
    for name in function.__code__.co_names:
        found = names.get(name)
        wrapped = getattr_static(found, "__wrapped__", found) if found is not None else None
        if isinstance(wrapped, FunctionType) and _package(wrapped.__module__ or "") == package:
            yield wrapped


def _cells(function: FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # a name that the enclosing function never bound
            continue
    return cells
