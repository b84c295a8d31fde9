"""Run streams: events in, in order, and out to any number of readers, from any process, from any point on.

Knows Redis and the wire; knows neither the flow nor the API.
"""
