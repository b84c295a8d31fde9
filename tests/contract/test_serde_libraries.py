"""Values of libraries that a graph may use and this project does not need.

pandas is not among them: it would make a fresh install half a minute longer. What it has is refused as any class that
no graph names (tests/contract/test_serde_values.py: "unknown subclass of datetime" is what its Timestamp is).
"""

from typing import Any

import attrs
import numpy as np
import pytest

from agentfarm.errors import ValueLost
from agentfarm.persistence.serde import FaithfulSerializer


def trip(value: Any, *types: type) -> Any:
    serde = FaithfulSerializer(types=types)
    return serde.loads_typed(serde.dumps_typed(value))


def test_arrays_of_numpy_come_back_with_their_shape_order_and_dtype_and_may_be_written_to() -> None:
    for array in (
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::2],
        np.array(["a", "bc"]),
        np.array(3.5),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
    ):
        back = trip({"a": [array]})["a"][0]
        assert (type(back), back.dtype, back.shape) == (type(array), array.dtype, array.shape)
        assert (back == array).all()
        assert back.flags.writeable
    assert trip(np.asfortranarray(np.ones((2, 3)))).flags.f_contiguous


def test_scalars_of_numpy_come_back_as_what_they_were() -> None:
    for number in (np.float64(1.5), np.float32(0.1), np.int64(-3), np.uint8(7), np.bool_(True), np.complex64(1 + 2j)):
        back = trip([number])[0]
        assert (type(back), back) == (type(number), number)
    assert type(trip([np.str_("x")])[0]) is np.str_
    assert type(trip([np.datetime64("2026-01-01T00:00")])[0]) is np.datetime64


def test_arrays_that_would_come_back_without_their_fields_objects_or_mask_are_refused() -> None:
    for array in (
        np.array([object()]),
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.ma.masked_array([1, 2], mask=[True, False]),
        np.longdouble(1.5),
    ):
        with pytest.raises(ValueLost, match=r"numpy"):
            trip([array])


def test_classes_of_attrs_come_back_frozen_slotted_and_with_private_names() -> None:
    @attrs.define
    class Slotted:
        x: Any
        _private: int = 2
        made: int = attrs.field(init=False, default=5)

    @attrs.frozen
    class Frozen:
        x: Any

    value = Slotted((1, 2), private=3)
    value.made = 9

    assert trip([value, Frozen(value)], Slotted, Frozen) == [value, Frozen(value)]
    with pytest.raises(ValueLost, match="Slotted"):
        trip([value], Frozen)
