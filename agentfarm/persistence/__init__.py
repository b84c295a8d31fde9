"""Postgres: the truth. Threads, runs, checkpoints, writes, node executions (lease, outbox and history at once).

Django migrations own the schema (sql/), SQLAlchemy Core reads and writes it; the two calls a node costs go straight to
libpq (executions.py). Every transaction is born with its tenant (database.py); row-level security does the rest.
"""
