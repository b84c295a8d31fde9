"""The story of a run, one file a station: admit, dispatch, step, watch, settle, heal, cancel, read.

It speaks to the world through `ports` and decides with the engine; it opens nothing itself.
"""
