"""LangGraph in, decisions out: executes one part of a run and says what follows. Opens nothing and saves nothing.

    graphs      the operator's langgraph.json, as compiled graphs
    steps       the words: a run, a node execution, what a segment wrote and decided
    segment     run one message's part of a run through stock `Pregel.stream`, over the loop of loop.py
    events      chunks of that stream, as the Agent Server names them;  jsonable: any value as JSON
    contention  what a new run does to a busy thread
    _langgraph  every private name of LangGraph that we stand on: one page to read at each upgrade

Loads no Django, Celery, Redis or database driver.
"""
