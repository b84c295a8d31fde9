"""The schema as SQL, and the reading of it. What is schema (tables, walls, functions) is here and nowhere in Python."""

from importlib import resources


def read_sql(name: str) -> str:
    """The text of one file of this folder, for example "tables.sql"."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
