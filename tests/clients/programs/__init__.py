"""Programs as somebody would write them for another service, with that service's library, run by .venv-clients' Python.

They know of Potluck what the library is told by its own settings: an address and a key, out of the environment. What
they find they print, a JSON object a line.
"""
