"""Python's garbage collector, told what a process keeps until its end."""

import gc


def spare_what_stays() -> None:
    """Let no collection look again at what is here now: call it when a process has loaded all that it needs.

    LangGraph, Django and the graphs are some 200,000 objects. Who reads a conversation of 10,000 messages makes as many
    as cause Python to go over all of these, more than once: reading took three times as long as it does now. And now
    and then any node did, 0.17 s in which the process's threads all stood still.
    """
    gc.collect()  # what is garbage now would never be collected
    gc.freeze()
