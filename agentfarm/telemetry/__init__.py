"""What operators see of a process. Ids, names and times; never state, prompts or keys."""
