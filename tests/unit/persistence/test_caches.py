"""What a worker keeps is bounded by bytes, and by the time that it lies unused."""

from agentfarm.persistence.caches import Cache
from agentfarm.persistence.working import Working


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache: Cache[str] = Cache(max_bytes=10)
    for key in (b"a", b"b", b"c"):
        cache.put(key, key.decode(), 4)
        assert cache.get(b"a") == "a"

    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")) == ("a", None, "c")


def test_a_value_larger_than_the_cache_is_not_kept_and_drops_nothing() -> None:
    cache: Cache[str] = Cache(max_bytes=10)
    cache.put(b"a", "a", 4)

    cache.put(b"b", "b", 11)

    assert (cache.get(b"a"), cache.get(b"b")) == ("a", None)


def test_a_value_put_again_counts_once() -> None:
    cache: Cache[str] = Cache(max_bytes=10)
    for _ in range(5):
        cache.put(b"a", "a", 6)
    cache.put(b"b", "b", 4)

    assert len(cache) == 2
    cache.drop(b"a")
    assert len(cache) == 1


def test_what_lay_unused_for_too_long_goes_however_much_room_there_is() -> None:
    seconds = 0.0
    cache: Cache[str] = Cache(max_bytes=1000, idle_seconds=300.0, now=lambda: seconds)
    cache.put(b"left", "left", 4)
    cache.put(b"used", "used", 4)
    seconds = 200.0
    assert cache.get(b"used") == "used"

    seconds = 301.0
    cache.put(b"new", "new", 4)

    assert (cache.get(b"left"), cache.get(b"used"), cache.get(b"new")) == (None, "used", "new")


def test_without_a_time_nothing_goes_by_its_age() -> None:
    seconds = 0.0
    cache: Cache[str] = Cache(max_bytes=1000, now=lambda: seconds)
    cache.put(b"old", "old", 4)

    seconds = 1e9
    cache.put(b"new", "new", 4)

    assert cache.get(b"old") == "old"


def test_a_second_delivery_knows_that_the_first_is_at_work() -> None:
    working = Working()

    assert working.begin(b"x")
    assert not working.begin(b"x")
    working.end(b"x")
    working.end(b"x")
    assert working.begin(b"x")


def test_what_the_garbage_collector_ended_is_counted_at_the_next_look() -> None:
    working = Working()
    working.begin(b"x")

    working.end_later(b"x")

    assert working.begin(b"x")
