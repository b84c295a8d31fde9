"""What the local model says: the last question, what its tools answered so far, and a few rules.

A rule reads the question and names a tool with arguments, or passes. All rules that fit fire at once, so one question
can make several tool calls beside each other; a rule that needs an earlier answer fires in the next round. Which is
what an agent's loop is for, and how a hosted model would go about it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

COUNT = re.compile(r"\bhow (?:many|often)\b.*\b(?:words?|times|occurs?|appears?)\b|\bhow often\b|\bcount\b", re.I)
TITLE = re.compile(r"\b(?:[Ii]n|[Oo]f|[Hh]as|[Hh]ave|[Dd]oes)\s+(?:the\s+)?([A-Z][\w']*(?:\s+(?:of\s+)?[A-Z][\w']*)*)")
QUOTED = re.compile(r"[\"“'‘]([^\"”'’]+)[\"”'’]")
SEARCH = re.compile(r"\b(?:search|find|look up|who|where|which|what do(?:es)? .*\bsays?|says? about)\b", re.I)
ABOUT = re.compile(r"\b(?:about|for)\s+([^?.;]+)", re.I)
EXPRESSION = re.compile(r"\(*\d[\d.]*(?:\s*(?:\*\*|//|[-+*/%()])\s*\(*\d[\d.]*\)*)+")
FOLLOW_UP = re.compile(
    r"\b(multiply|times|divide|add|subtract)(?:\s+(?:it|that|this|them|the \w+))?(?:\s+(?:by|with))?\s+(\d[\d.]*)", re.I
)
OPERATORS = {"mul": "*", "tim": "*", "div": "/", "add": "+", "sub": "-"}
MEMORY = re.compile(r"\bwhat (?:did|have) I (?:ask|say|said)", re.I)

INTRODUCTION = (
    "I am the local model of these examples: a few rules, no network, no key. I can search three historic texts, count "
    "their words and calculate. Try: Find what is said about trial by jury, and what is 12 * (3 + 4)? "
    "With MODEL set to a hosted one, for example openai:gpt-5-mini, the same agent answers anything."
)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    tool: str
    arguments: dict[str, Any] = field(hash=False)


def decide_reply(messages: Sequence[BaseMessage], tools: frozenset[str]) -> Answer | list[ToolUse]:
    """Tool calls that are still to be made for the last question, or the answer when there are none."""
    last = max((i for i, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    if last < 0:
        return Answer(INTRODUCTION)
    question = messages[last].text
    since = messages[last + 1 :]
    made = [call["name"] for message in since if isinstance(message, AIMessage) for call in message.tool_calls]
    results = [message for message in since if isinstance(message, ToolMessage)]
    wanted = (
        [use for use in _first_round(question) if use.tool in tools] if not made else _second_round(question, results)
    )
    open_uses = [use for use in wanted if use.tool in tools and (not made or use.tool not in made)]
    return open_uses or Answer(_answer(question, messages[:last], results))


def _first_round(question: str) -> list[ToolUse]:
    uses = []
    quoted = QUOTED.search(question)
    if COUNT.search(question):
        title = TITLE.search(question)
        arguments = {"title": title[1] if title else question}
        uses.append(ToolUse("count_words", arguments | ({"word": quoted[1]} if quoted else {})))
    if expression := EXPRESSION.search(question):
        uses.append(ToolUse("calculate", {"expression": expression[0].strip()}))
    if SEARCH.search(question) and not COUNT.search(question):
        about = ABOUT.search(question)
        query = quoted[1] if quoted else about[1] if about else question
        uses.append(ToolUse("search_library", {"query": re.split(r",? and (?:what|how|then)\b", query)[0].strip()}))
    return uses


def _second_round(question: str, results: Sequence[ToolMessage]) -> list[ToolUse]:
    """Arithmetic on a number that a tool has just found: "… and multiply that by 7"."""
    asked = FOLLOW_UP.search(question)
    counted = next((message for message in results if message.name == "count_words"), None)
    number = re.search(r"\d+", counted.text) if counted else None
    if not asked or not number:
        return []
    return [
        ToolUse("calculate", {"expression": f"{number[0]} {OPERATORS[asked[1][:3].lower()]} {asked[2].rstrip('.')}"})
    ]


def _answer(question: str, before: Sequence[BaseMessage], results: Sequence[ToolMessage]) -> str:
    if results:
        return "\n\n".join(message.text for message in results)
    if MEMORY.search(question):
        asked = [f'"{message.text}"' for message in before if isinstance(message, HumanMessage)]
        return f"So far you asked: {'; '.join(asked)}." if asked else "This is your first question in this thread."
    return INTRODUCTION
