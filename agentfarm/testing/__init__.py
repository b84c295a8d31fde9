"""For tests, ours and those of who builds on AgentFarm: small graphs with known answers, and the engine
in one process.
"""
