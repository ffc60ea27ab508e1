"""The door for programs that speak OpenAI's API, under /v1.

`bodies` is what clients send, `asking` what that means to a horde; `answers`, `talk` and `lines` are what they get,
`stream` writes it as it comes; `faults` are the errors; `door` does all that for each path.
"""

from __future__ import annotations

from peer.gateway.openai.door import KEYS, NAME, PREFIXES, prepare, refuse, routes

__all__ = ["KEYS", "NAME", "PREFIXES", "prepare", "refuse", "routes"]
