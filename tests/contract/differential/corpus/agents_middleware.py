"""The middleware of langchain, each alone and in the pairs that people use, and middleware of one's own."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NotRequired

from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    ExtendedModelResponse,
    HumanInTheLoopMiddleware,
    LLMToolEmulator,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    ToolErrorMiddleware,
    ToolRetryMiddleware,
    after_model,
    before_model,
    dynamic_prompt,
)
from langchain.agents.middleware.types import hook_config
from langchain.tools import tool
from langchain_core.messages import BaseMessage
from langgraph.types import Command

from tests.contract.differential.scenario import Run, answer, resume, scenario
from tests.contract.differential.scripted import Reply, follows, human, in_turn, speaks, use


@tool
def send(to: str, text: str = "hi") -> str:
    """Send a message."""
    return f"sent {text} to {to}"


@tool
def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


@tool
def look(at: str) -> str:
    """Look at something."""
    return f"{at} looks fine"


@tool
def breaks(why: str) -> str:
    """Fails."""
    raise ValueError(why)


# --------------------------------------------------------------------------- a human in the loop

GATED: Mapping[str, Any] = {"send": True, "delete": {"allowed_decisions": ["approve", "edit", "reject", "respond"]}}


def gated(*replies: Reply, mode: Any = "batched", before: tuple[Any, ...] = (), after: tuple[Any, ...] = ()) -> Any:
    human_in_the_loop = HumanInTheLoopMiddleware(interrupt_on=dict(GATED), interrupt_mode=mode)
    return create_agent(speaks(*replies), [send, delete, look], middleware=[*before, human_in_the_loop, *after])


def decide(*decisions: Mapping[str, Any], **options: Any) -> Run:
    return resume({"decisions": list(decisions)}, **options)


APPROVE: Mapping[str, Any] = {"type": "approve"}
EDIT: Mapping[str, Any] = {"type": "edit", "edited_action": {"name": "send", "args": {"to": "Bob", "text": "hello"}}}
REJECT: Mapping[str, Any] = {"type": "reject", "message": "not that"}
RESPOND: Mapping[str, Any] = {"type": "respond", "message": "I did it myself"}

ONE = ([use("send", to="Ada")], "It is done.")
THREE = ([use("send", to="Ada"), use("look", at="x"), use("delete", path="/tmp/x")], "All three.")

HUMAN = [
    scenario(f"mw_human_{name}", gated(*ONE), Run(human("send")), decide(decision), features="hitl interrupt")
    for name, decision in {"approves": APPROVE, "edits": EDIT, "rejects": REJECT}.items()
]
HUMAN += [
    scenario(
        "mw_human_responds",
        gated([use("delete", path="/x")], "Good."),
        Run(human("delete")),
        decide(RESPOND),
        features="hitl interrupt",
    ),
    scenario(
        "mw_human_several",
        gated(*THREE),
        Run(human("all")),
        decide(APPROVE, RESPOND),
        features="hitl interrupt send",
        parallel=True,
    ),
    scenario(
        "mw_human_wrong_count", gated(*THREE), Run(human("all")), decide(APPROVE), features="hitl interrupt error"
    ),
    scenario(
        "mw_human_one_by_one",
        gated(*THREE, mode="per_call"),
        Run(human("all")),
        answer({"send": EDIT}),
        answer({"delete": REJECT}),
        features="hitl interrupt send resume_map",
        parallel=True,
    ),
    scenario(
        "mw_human_together",
        gated(*THREE, mode="per_call"),
        Run(human("all")),
        answer({"send": APPROVE, "delete": RESPOND}),
        features="hitl interrupt send resume_map",
        parallel=True,
    ),
    scenario(
        "mw_human_bad_answer",
        gated(*ONE, mode="per_call"),
        Run(human("all")),
        answer({"send": {"type": "shrug"}}),
        answer({"send": APPROVE}),
        features="hitl interrupt error",
    ),
    scenario(
        "mw_human_two_turns",
        gated(*ONE, [use("delete", path="/y")], "Also done."),
        Run(human("send")),
        decide(APPROVE),
        Run(human("delete")),
        decide(REJECT),
        features="hitl interrupt memory",
    ),
    scenario(
        "mw_human_ignored", gated(*ONE), Run(human("send")), Run(human("never mind")), features="hitl interrupt memory"
    ),
]

# --------------------------------------------------------------------------- limits, whose counts are UntrackedValues

LOOPING = ([use("look", at="a")], [use("look", at="b")], [use("look", at="c")], "enough")


def _plain(*middleware: Any, replies: tuple[Reply, ...] = LOOPING, **options: Any) -> Any:
    return create_agent(speaks(*replies), [send, delete, look, breaks], middleware=middleware, **options)


LIMITS = [
    scenario(
        "mw_model_calls_of_a_run",
        _plain(ModelCallLimitMiddleware(run_limit=2)),
        Run(human("look")),
        Run(human("more")),
        features="model_call_limit untracked memory",
    ),
    scenario(
        "mw_model_calls_of_a_thread",
        _plain(ModelCallLimitMiddleware(thread_limit=3, exit_behavior="error")),
        Run(human("look")),
        features="model_call_limit untracked error",
    ),
    scenario(
        "mw_tool_calls",
        _plain(ToolCallLimitMiddleware(tool_name="look", run_limit=1, thread_limit=2)),
        Run(human("look")),
        Run(human("again")),
        features="tool_call_limit untracked memory",
    ),
    scenario(
        "mw_tool_calls_end",
        _plain(ToolCallLimitMiddleware(run_limit=1, exit_behavior="end")),
        Run(human("look")),
        features="tool_call_limit untracked",
    ),
    scenario(
        "mw_tool_calls_of_several",
        _plain(
            ToolCallLimitMiddleware(run_limit=2),
            ToolCallLimitMiddleware(tool_name="look", run_limit=1),
            replies=([use("look", at="a"), use("look", at="b"), use("send", to="c")], "ok"),
        ),
        Run(human("look")),
        features="tool_call_limit untracked send",
        parallel=True,
    ),
    scenario(
        "mw_limit_and_human",
        gated(
            *ONE,
            before=(ModelCallLimitMiddleware(run_limit=2, thread_limit=5),),
            after=(ToolCallLimitMiddleware(run_limit=1),),
        ),
        Run(human("send")),
        decide(APPROVE),
        Run(human("again")),
        features="model_call_limit hitl untracked interrupt",
    ),
]

# --------------------------------------------------------------------------- failures


class NotToday(Exception):
    pass


def _sulks(messages: list[BaseMessage]) -> Reply:
    raise NotToday("the model is away")


def _excuse(error: Exception, *_: Any) -> str:
    return f"it failed: {error}"


PATIENT: Mapping[str, Any] = {"initial_delay": 0.0, "backoff_factor": 0.0, "jitter": False, "max_retries": 1}
BROKEN = ([use("breaks", why="no luck"), use("look", at="x")], "One worked.")

FAILURES = [
    scenario(
        "mw_tool_retry",
        _plain(ToolRetryMiddleware(**PATIENT), replies=BROKEN),
        Run(human("go")),
        features="tool_retry send",
        parallel=True,
    ),
    scenario(
        "mw_tool_retry_raises",
        _plain(ToolRetryMiddleware(**PATIENT, on_failure="error"), replies=(BROKEN[0][:1],)),
        Run(human("go")),
        features="tool_retry error",
    ),
    scenario(
        "mw_tool_error",
        _plain(ToolErrorMiddleware(_excuse), replies=BROKEN),
        Run(human("go")),
        features="tool_error send",
        parallel=True,
    ),
    scenario(
        "mw_model_retry",
        create_agent(follows(_sulks), [look], middleware=[ModelRetryMiddleware(**PATIENT)]),
        Run(human("go")),
        features="model_retry",
    ),
    scenario(
        "mw_model_retry_raises",
        create_agent(follows(_sulks), [look], middleware=[ModelRetryMiddleware(**PATIENT, on_failure="error")]),
        Run(human("go")),
        features="model_retry error",
    ),
    scenario(
        "mw_model_fallback",
        create_agent(
            follows(_sulks), [look], middleware=[ModelFallbackMiddleware(speaks(*LOOPING[:1], "The other one."))]
        ),
        Run(human("go")),
        features="model_fallback tokens",
    ),
]

# --------------------------------------------------------------------------- what the model is told

TODOS = [{"content": "look", "status": "in_progress"}, {"content": "tell", "status": "pending"}]
PLANNING = (
    [use("write_todos", todos=TODOS)],
    [use("look", at="x")],
    [use("write_todos", todos=[{**todo, "status": "completed"} for todo in TODOS])],
    "Planned and done.",
)
TWO_LISTS = ([use("write_todos", todos=TODOS), use("write_todos", todos=TODOS)], "Only one at a time.")


def _summarizing(messages: list[BaseMessage]) -> Reply:
    return f"{len(messages)} messages so far: it went well"


def _short(count: int) -> Any:
    return SummarizationMiddleware(follows(_summarizing), trigger=("messages", count), keep=("messages", 2))


def _counts(messages: list[BaseMessage]) -> Reply:
    return f"I was told {len(messages)} messages of {sum(len(m.text) for m in messages)} letters"


MAILS = "write to ada@example.com from 10.0.0.1 with 4111111111111111"

TOLD = [
    scenario("mw_todos", _plain(TodoListMiddleware(), replies=PLANNING), Run(human("plan")), features="todo"),
    scenario(
        "mw_two_todo_lists",
        _plain(TodoListMiddleware(), replies=TWO_LISTS),
        Run(human("plan")),
        features="todo send",
        parallel=True,
    ),
    scenario(
        "mw_summary",
        create_agent(follows(_counts), [look], middleware=[_short(4)]),
        Run(human("one")),
        Run(human("two")),
        Run(human("three")),
        features="summarization memory remove_message",
    ),
    scenario(
        "mw_context_editing",
        _plain(ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=1, keep=1)])),
        Run(human("look")),
        features="context_editing",
    ),
    scenario(
        "mw_pii",
        create_agent(
            follows(_counts),
            [look],
            middleware=[
                PIIMiddleware("email", strategy="redact"),
                PIIMiddleware("ip", strategy="hash"),
                PIIMiddleware("credit_card", strategy="mask"),
            ],
        ),
        Run(human(MAILS)),
        features="pii",
    ),
    scenario(
        "mw_pii_of_answers",
        create_agent(speaks(MAILS), [], middleware=[PIIMiddleware("email", apply_to_output=True)]),
        Run(human("go")),
        features="pii tokens",
    ),
    scenario(
        "mw_pii_blocks",
        create_agent(follows(_counts), [], middleware=[PIIMiddleware("email", strategy="block")]),
        Run(human(MAILS)),
        features="pii error",
    ),
    scenario(
        "mw_emulated_tool",
        _plain(LLMToolEmulator(tools=["breaks"], model=speaks("as if", speaker="emulator")), replies=BROKEN),
        Run(human("go")),
        features="tool_emulator send",
        parallel=True,
    ),
    scenario(
        "mw_all_of_it",
        gated(
            *PLANNING[:1],
            *ONE,
            *ONE,
            before=(TodoListMiddleware(), _short(6), ModelCallLimitMiddleware(thread_limit=20)),
            after=(ToolRetryMiddleware(**PATIENT), PIIMiddleware("email")),
        ),
        Run(human("plan ada@example.com")),
        decide(EDIT),
        Run(human("again")),
        features="todo summarization hitl pii tool_retry untracked interrupt",
    ),
]

# --------------------------------------------------------------------------- one's own


@dataclasses.dataclass
class Reader:
    language: str = "English"


class CountingState(AgentState[Any]):
    calls: NotRequired[int]
    marks: NotRequired[list[tuple[str, int]]]


class Counting(AgentMiddleware[CountingState, Any, Any]):
    """Every hook there is, with a state of its own."""

    state_schema = CountingState

    def before_agent(self, state: CountingState, runtime: Any) -> dict[str, Any]:
        return {"calls": 0, "marks": [("begin", len(state["messages"]))]}

    def before_model(self, state: CountingState, runtime: Any) -> dict[str, Any]:
        runtime.stream_writer({"from": "counting", "calls": state["calls"]})
        return {"calls": state["calls"] + 1}

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: CountingState, runtime: Any) -> dict[str, Any] | None:
        return {"jump_to": "end", "messages": [("ai", "stopped")]} if state["calls"] > 2 else None

    def after_agent(self, state: CountingState, runtime: Any) -> dict[str, Any]:
        return {"marks": [*state["marks"], ("end", state["calls"])]}

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return self._marked(request, handler(self._told(request)))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        return self._marked(request, await handler(self._told(request)))

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return self._bracketed(handler(request))

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        return self._bracketed(await handler(request))

    def _told(self, request: Any) -> Any:
        return request.override(system_prompt=f"call {request.state['calls']}")

    def _marked(self, request: Any, response: Any) -> Any:
        update = {"marks": [*request.state["marks"], ("model", request.state["calls"])]}
        return ExtendedModelResponse(model_response=response, command=Command(update=update))

    def _bracketed(self, done: Any) -> Any:
        return done.model_copy(update={"content": f"[{done.content}]"})


@dynamic_prompt
def in_their_language(request: Any) -> str:
    return f"Answer in {request.runtime.context.language}."


def _says_the_prompt(messages: list[BaseMessage]) -> Reply:
    return messages[0].text


@before_model(can_jump_to=["end"])
def not_twice(state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
    if len(state["messages"]) > 2:
        return {"jump_to": "end", "messages": [("ai", "We have spoken already.")]}
    return None


@after_model
async def signed(state: AgentState[Any], runtime: Any) -> dict[str, Any]:
    last = state["messages"][-1]
    return {"messages": [last.model_copy(update={"content": f"{last.text} (signed)"})]}


OWN = [
    scenario(
        "mw_own_hooks",
        _plain(Counting()),
        Run(human("look")),
        Run(human("again")),
        features="own_middleware state_schema jump_to custom memory",
    ),
    scenario(
        "mw_own_prompt",
        create_agent(follows(_says_the_prompt), [look], middleware=[in_their_language], context_schema=Reader),
        Run(human("hi"), context={"language": "Norsk"}),
        Run(human("hi"), context={}),
        features="own_middleware context dynamic_prompt",
    ),
    scenario(
        "mw_own_jump",
        create_agent(follows(_counts), [look], middleware=[not_twice]),
        Run(human("hi")),
        Run(human("hi")),
        features="own_middleware jump_to",
    ),
    scenario(
        "mw_own_async",
        create_agent(follows(in_turn("Yours")), [look], middleware=[signed]),
        Run(human("hi")),
        features="own_middleware async",
    ),
    scenario(
        "mw_breakpoints",
        _plain(interrupt_before=["tools"]),
        Run(human("look")),
        Run(),
        Run(),
        Run(),
        features="create_agent static_interrupt",
    ),
]

SCENARIOS = [*HUMAN, *LIMITS, *FAILURES, *TOLD, *OWN]
