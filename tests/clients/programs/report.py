"""What a program has to tell the test that started it."""

import json
import sys
from typing import Any


def say(step: str, **found: Any) -> None:
    """One line, at once."""
    sys.stdout.write(json.dumps({"step": step, **found}) + "\n")
    sys.stdout.flush()
