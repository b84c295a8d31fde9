"""What goes on the wire, byte for byte."""

from collections.abc import AsyncIterator

from agentfarm.records import Event
from agentfarm.streaming.sse import render_event, render_events


def test_an_event_is_name_data_and_id_in_that_order_with_crlf() -> None:
    event = Event("values", b'{"a":1}', "1795416286670-0")

    assert render_event(event) == b'event: values\r\ndata: {"a":1}\r\nid: 1795416286670-0\r\n\r\n'


def test_an_event_without_an_id_has_no_id_line() -> None:
    assert render_event(Event("end", b"null")) == b"event: end\r\ndata: null\r\n\r\n"


def test_a_name_with_line_ends_cannot_forge_fields() -> None:
    forged = render_event(Event("updates|child\r\ndata: forged\n\nevent: end", b"1", "1-0"))

    assert forged.count(b"\r\n") == 4
    assert b"\ndata: forged" not in forged
    assert b"\nevent: end" not in forged


def test_data_of_several_lines_stays_one_event() -> None:
    assert render_event(Event("custom", b"1\n2")) == b"event: custom\r\ndata: 1\r\ndata: 2\r\n\r\n"


async def test_a_heartbeat_is_a_comment() -> None:
    async def events() -> AsyncIterator[Event | None]:
        yield None
        yield Event("end", b"null")

    assert [chunk async for chunk in render_events(events())] == [
        b": heartbeat\r\n\r\n",
        b"event: end\r\ndata: null\r\n\r\n",
    ]
