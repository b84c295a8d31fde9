"""What belongs to a tenant and what an operator sees: a Django app over the control tables and, read only, over the
farm's.

models     tenants, members, keys, audit; threads, runs and the rest as the admin reads them
keys       API keys: made, parsed, verified (no Django)
scoping    which tenants a user of the admin may see and act for
admin      the operator's pages
management farm_setup, farm_key, farm_roles, farm_executions; migrate as the owner
"""
