"""HTTP as the Agent Server API spells it. A door: reads, calls a station of the flow, renders.

asgi.py → edge.py (limits, CORS, request id) → streaming/handoff.py → django_handler.py → app.py → runs.py and its like
"""
