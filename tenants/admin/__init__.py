"""The operator's pages. Each file registers what it shows; each page says what it shows and what to do with it.

base       what all pages share: scoped by tenant, bounded, audited
tenants    tenants and their members; issuing a key
keys       API keys: list and revoke
threads    threads: the line of node executions, step by step
runs       runs: what happened, cancel, retry
dead       what was buried: retry its run, or dismiss it
store      items of the store: which there are and how large
workers    worker processes
audit      who did what
users      Django's users and groups, audited too
actions    the calls into the flow
"""

from tenants.admin import audit, dead, keys, runs, store, tenants, threads, users, workers

__all__ = ["audit", "dead", "keys", "runs", "store", "tenants", "threads", "users", "workers"]
