import threading

from agentfarm.errors import StoreUnavailable
from workers.schedule import Healer


class Sweeps:
    """A sweep that raises what it is told, one after the other, and then tells that it was called once more."""

    def __init__(self, *raises: Exception) -> None:
        self.raises = list(raises)
        self.went_on = threading.Event()

    def __call__(self) -> None:
        if self.raises:
            raise self.raises.pop(0)
        self.went_on.set()


def test_the_healer_goes_on_whatever_a_sweep_raises() -> None:
    sweep = Sweeps(StoreUnavailable(), RuntimeError("a bug"))
    healer = Healer(sweep, every_seconds=0.001)

    healer.start()

    assert sweep.went_on.wait(5)
    healer.stop()
    assert not healer.is_alive()


def test_a_stop_does_not_wait_for_the_next_sweep() -> None:
    sweep = Sweeps()
    healer = Healer(sweep, every_seconds=3600)
    healer.start()
    assert sweep.went_on.wait(5)

    healer.stop()

    assert not healer.is_alive()
