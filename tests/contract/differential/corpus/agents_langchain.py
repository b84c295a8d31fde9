"""Agents of `langchain.agents.create_agent`: tools, structured answers, memory, contexts and states of their own."""

import dataclasses
import enum
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, NotRequired

from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain.tools import InjectedState, InjectedToolCallId, ToolRuntime, tool
from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from langgraph.types import Command, interrupt
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from tests.contract.differential.scenario import AnyGraph, Run, resume, scenario
from tests.contract.differential.scripted import human, speaks, use


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@tool
async def weather_later(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


@tool
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@tool
def fails(why: str) -> str:
    """Fails."""
    raise ValueError(why)


@tool
def asks(question: str) -> str:
    """Asks a human."""
    return f"told: {interrupt({'question': question})}"


TURNS = (
    [use("weather", city="Oslo")],
    "It is sunny in Oslo.",
    [use("add", a=1, b=2)],
    [use("add", a=3, b=4)],
    "Seven in the end.",
    "You are welcome.",
)

three_turns = create_agent(speaks(*TURNS), [weather, add], system_prompt="Be short.", name="talker")

later = create_agent(speaks([use("weather_later", city="Bergen")], "It rains."), [weather_later])

several_calls = create_agent(
    speaks([use("weather", city="A"), use("weather", city="B"), use("add", a=1, b=1)], "Three answers."), [weather, add]
)

failing_tool = create_agent(speaks([use("fails", why="no luck")], "never said"), [fails])

wrong_arguments = create_agent(speaks([use("add", a="one", b=2)], "I called it wrongly."), [add])

no_such_tool = create_agent(speaks([use("nothing", a=1)], "There is no such tool."), [add])

asking_tool = create_agent(speaks([use("asks", question="name?")], "Thanks."), [asks])

two_asking_tools = create_agent(
    speaks([use("asks", question="name?"), use("asks", question="age?")], "Thanks for both."), [asks]
)


# --------------------------------------------------------------------------- states, contexts, what tools are given


class Shelf(BaseModel):
    """A pydantic model in the state."""

    label: str
    items: list[str] = Field(default_factory=list)


class ShopState(AgentState[Any]):
    budget: NotRequired[int]
    shelf: NotRequired[Shelf]


@dataclasses.dataclass
class Customer:
    name: str
    tier: str = "plain"


@tool
def spend(
    amount: int, state: Annotated[dict[str, Any], InjectedState], call: Annotated[str, InjectedToolCallId]
) -> Any:
    """Spend some of the budget."""
    left = state["budget"] - amount
    shelf = Shelf(label="bought", items=[f"for {amount}"])
    told = ToolMessage(f"{left} left", tool_call_id=call)
    return Command(update={"budget": left, "shelf": shelf, "messages": [told]})


@tool
def who(runtime: ToolRuntime[Customer, ShopState]) -> str:
    """Who asks."""
    runtime.stream_writer({"from": "who", "call": runtime.tool_call_id})
    said = len(runtime.state["messages"])
    return f"{runtime.context.name}, {runtime.context.tier}, after {said} messages"


shop = create_agent(
    speaks([use("spend", amount=3)], [use("spend", amount=4)], "All spent."), [spend], state_schema=ShopState
)

customer = create_agent(speaks([use("who")], "Hello."), [who], state_schema=ShopState, context_schema=Customer)


# --------------------------------------------------------------------------- structured answers


class Forecast(BaseModel):
    """The forecast."""

    city: str
    degrees: float


@dataclasses.dataclass
class Verdict:
    """A verdict."""

    good: bool
    why: str


class Refusal(TypedDict):
    """Why not."""

    reason: str


class Mood(enum.Enum):
    HAPPY = "happy"
    SAD = "sad"


def _local_answer() -> AnyGraph:
    class Feeling(BaseModel):
        """A class that nobody can import."""

        mood: Mood
        since: list[int]

    return create_agent(
        speaks([use("Feeling", mood="sad", since=[1, 2])]), [weather], response_format=ToolStrategy(Feeling)
    )


by_tool = create_agent(
    speaks([use("weather", city="Rome")], [use("Forecast", city="Rome", degrees=21.5)]),
    [weather],
    response_format=ToolStrategy(Forecast),
)

by_provider = create_agent(speaks('{"city": "Rome", "degrees": 20}'), [], response_format=ProviderStrategy(Forecast))

by_dataclass = create_agent(speaks([use("Verdict", good=True, why="it is")]), [], response_format=ToolStrategy(Verdict))

one_of_two = create_agent(speaks([use("Refusal", reason="none")]), [], response_format=ToolStrategy(Forecast | Refusal))

corrected = create_agent(
    speaks([use("Forecast", city="Rome")], [use("Forecast", city="Rome", degrees=1)]),
    [],
    response_format=ToolStrategy(Forecast),
)

local_answer = _local_answer()


# --------------------------------------------------------------------------- values that no schema of the agent names


@dataclasses.dataclass(frozen=True)
class Hit:
    page: int
    words: tuple[str, ...]


@tool(response_format="content_and_artifact")
def retrieve(query: str) -> tuple[str, Any]:
    """Search in books."""
    found = Document(page_content=f"all about {query}", metadata={"at": Decimal("1.50"), "on": date(2026, 1, 2)})
    return "one book", {"books": [found], "hits": [Hit(3, ("a", "b"))], "shelf": Shelf(label="books")}


class Postcard(BaseModel):
    """A postcard."""

    to: str
    stamps: set[int]


@wrap_model_call
async def answers_a_postcard(request: Any, handler: Any) -> Any:
    return await handler(request.override(response_format=ProviderStrategy(Postcard)))


artifacts = create_agent(speaks([use("retrieve", query="tea")], "One book."), [retrieve])
chosen_answer = create_agent(speaks('{"to": "Ada", "stamps": [1, 2]}'), [], middleware=[answers_a_postcard])


# --------------------------------------------------------------------------- agents in graphs, agents in tools


def _in_a_graph() -> AnyGraph:
    inner = create_agent(speaks([use("weather", city="Rome")], "Sunny.", speaker="inner"), [weather], name="inner")
    builder = StateGraph(MessagesState)
    builder.add_node("inner", inner)
    builder.add_node("end", lambda state: {"messages": [("ai", f"{len(state['messages'])} messages")]})
    builder.add_edge(START, "inner")
    builder.add_edge("inner", "end")
    return builder.compile()


_expert = create_agent(speaks([use("asks", question="really?")], "The expert agrees.", speaker="expert"), [asks])


@tool
def consult(topic: str) -> str:
    """Ask the expert."""
    answer = _expert.invoke(human(topic))
    return str(answer["messages"][-1].content)


in_a_graph = _in_a_graph()
in_a_tool = create_agent(speaks([use("consult", topic="tea")], "The expert has spoken."), [consult])


# --------------------------------------------------------------------------- langgraph.prebuilt


def _shortened(state: Any) -> Any:
    return {"llm_input_messages": state["messages"][-3:]}


def _noted(state: Any) -> Any:
    return {"messages": [("ai", f"noted after {len(state['messages'])}")]} if len(state["messages"]) == 4 else {}


react = create_react_agent(speaks(*TURNS), [weather, add], prompt="Be short.")
react_v1 = create_react_agent(
    speaks([use("weather", city="A"), use("weather", city="B")], "Both."), [weather], version="v1"
)
react_hooks = create_react_agent(
    speaks([use("weather", city="A")], "It is sunny."), [weather], pre_model_hook=_shortened, post_model_hook=_noted
)

SCENARIOS = [
    scenario(
        "lc_three_turns",
        three_turns,
        Run(human("weather?")),
        Run(human("sums?")),
        Run(human("thanks")),
        features="create_agent memory messages tokens",
    ),
    scenario("lc_async_tool", later, Run(human("weather?")), features="create_agent async tokens"),
    scenario("lc_several_calls", several_calls, Run(human("all!")), features="create_agent send", parallel=True),
    scenario("lc_failing_tool", failing_tool, Run(human("try")), features="create_agent error"),
    scenario("lc_wrong_arguments", wrong_arguments, Run(human("try")), features="create_agent error"),
    scenario("lc_no_such_tool", no_such_tool, Run(human("try")), features="create_agent error"),
    scenario("lc_asking_tool", asking_tool, Run(human("hi")), resume("Ada"), features="create_agent interrupt"),
    scenario(
        "lc_two_asking_tools",
        two_asking_tools,
        Run(human("hi")),
        Run(answers={"age?": 36}),
        Run(answers={"name?": "Ada"}),
        features="create_agent interrupt send resume_map",
        parallel=True,
    ),
    scenario(
        "lc_state",
        shop,
        Run({**human("buy"), "budget": 10}),
        Run(human("again")),
        features="create_agent state_schema command injected",
    ),
    scenario(
        "lc_context",
        customer,
        Run(human("who am I?"), context={"name": "Ada", "tier": "gold"}),
        Run({**human("and now?"), "budget": 1}, context={"name": "Bob"}),
        features="create_agent context tool_runtime custom",
    ),
    scenario("lc_answer_by_tool", by_tool, Run(human("Rome?")), features="create_agent response_format"),
    scenario("lc_answer_by_provider", by_provider, Run(human("Rome?")), features="create_agent response_format"),
    scenario("lc_answer_dataclass", by_dataclass, Run(human("good?")), features="create_agent response_format"),
    scenario("lc_answer_one_of_two", one_of_two, Run(human("Rome?")), features="create_agent response_format"),
    scenario("lc_answer_corrected", corrected, Run(human("Rome?")), features="create_agent response_format"),
    scenario("lc_answer_local_class", local_answer, Run(human("feel?")), features="create_agent response_format"),
    scenario("lc_artifacts", artifacts, Run(human("tea?")), Run(human("more")), features="create_agent artifact"),
    scenario("lc_answer_chosen", chosen_answer, Run(human("write")), features="create_agent response_format"),
    scenario("lc_in_a_graph", in_a_graph, Run(human("Rome?")), features="create_agent subgraph tokens"),
    scenario("lc_in_a_tool", in_a_tool, Run(human("tea?")), resume("yes"), features="create_agent subgraph interrupt"),
    scenario(
        "react_three_turns",
        react,
        Run(human("weather?")),
        Run(human("sums?")),
        Run(human("thanks")),
        features="create_react_agent memory",
    ),
    scenario("react_v1", react_v1, Run(human("both?")), features="create_react_agent"),
    scenario("react_hooks", react_hooks, Run(human("weather?")), features="create_react_agent"),
]
