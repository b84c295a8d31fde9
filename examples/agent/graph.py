"""A ReAct agent: a chat model that calls tools until it can answer.

The model is MODEL (as `init_chat_model` names it, for example "openai:gpt-5-mini"; its package and its key are the
operator's), or without it the local one, which needs neither.
"""

import os

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel

from examples.agent.tools import TOOLS
from examples.local_model import LocalChatModel

SYSTEM_PROMPT = (
    "You answer questions about three historic texts: the Declaration of Independence, the Bill of Rights and the "
    "Gettysburg Address. Look things up with your tools instead of quoting from memory, name the source, and use the "
    "calculator for arithmetic. Be brief."
)


def choose_model() -> BaseChatModel:
    name = os.environ.get("MODEL", "")
    return init_chat_model(name) if name else LocalChatModel()


graph = create_agent(choose_model(), list(TOOLS), system_prompt=SYSTEM_PROMPT, name="agent")
