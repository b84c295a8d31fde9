"""Small complete agents, served by the langgraph.json beside this folder. Each has a README that says how to run it."""
