"""What the run is that goes on with a failed one. Touches nothing: runs.py brings the facts and admits the answer."""

from dataclasses import replace

from agentfarm import ids
from agentfarm.records import NewRun, RunRow

#: Where a run was asked to begin: not where it has come to.
_BEGINNING = ("checkpoint_id", "checkpoint_map")


def plan_retrial(failed: RunRow, *, began: bool) -> NewRun:
    """A new run that goes on from the thread's head, with what was asked for the first time.

    failed  with its spec
    began   it got as far as a checkpoint of its own, which has its input; else the input is given once more
    """
    spec, run_id = failed.spec, ids.new_id()
    if spec is None:
        raise ValueError("the failed run came without its spec")
    dropped = _BEGINNING if began else ()
    configurable = {key: value for key, value in spec.config.get("configurable", {}).items() if key not in dropped}
    metadata = spec.config.get("metadata", {})
    config = {
        **spec.config,
        "configurable": {**configurable, "run_id": str(run_id)},
        "metadata": {**metadata, "run_id": str(run_id)},
    }
    return NewRun(
        run_id=run_id,
        thread_id=failed.thread_id,
        assistant_id=failed.assistant_id,
        graph_id=failed.graph_id,
        spec=replace(spec, run_id=str(run_id), input=None if began else spec.input, config=config),
        strategy="reject",
        metadata={**failed.metadata, "retry_of": str(failed.run_id)},
        forget_thread=failed.forget_thread,
    )
