"""Runs that are moved by Redis while they are under way: one Lua script a step, Postgres written behind.

    servers.py       who has a thread, one Redis or a cluster's, and the way to it
    scripts.py       the scripts as calls, and what their answers mean
    leases.py        who works on what there
    claims.py        the claim of a run's start, which begins it there, and of its executions
    tier.py          the tier of such a run (persistence/tier.py)
    saver.py         LangGraph's saver as one of its node executions has it
    entries.py       what a commit leaves for Postgres, and many of them as one call
    calls.py         the calls that bring it there, and take a run over
    write_behind.py  from Redis to Postgres: soon, at the end of a run, and before anybody reads
    renewal.py       a process works on what it has leased there
    healing.py       what stands still there

Redis only has to be fast. What it has lost, or cannot take, ends in one way: the run is recalled, and goes on from its
last entry in Postgres as any other run does (sql/redis_tier.sql, docs/decisions/0013).
"""
