"""Names that a client chose, as an error may repeat them."""

import re
from typing import Final

#: How much of a name is repeated.
MAX_NAME: Final = 64


def safe_name(name: str) -> str:
    """Bounded, and of characters that names have: what else was in it becomes a question mark."""
    return re.sub(r"[^\w.\-|$ ]", "?", name[:MAX_NAME])
