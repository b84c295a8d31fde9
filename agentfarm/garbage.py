"""Python's garbage collector, told what a process keeps until its end."""

import gc


def spare_what_stays() -> None:
    """Let no collection look again at what is here now: call it when a process has loaded all that it needs.

    LangGraph, Django and the graphs are more than 100,000 objects. Who reads a conversation of 10,000 messages makes so
    many that Python goes over all of these, more than once: two thirds of the time of reading, and now and then 0.17 s
    of any node's, in which the process's threads all stand still (docs/benchmarks/README.md).
    """
    gc.collect()  # what is garbage now would never be collected
    gc.freeze()
