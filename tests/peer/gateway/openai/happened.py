"""Things that happen to jobs, with sound defaults."""

from peer import events


def leased(index, attempt=1, model="m"):
    """A worker has it."""
    return events.Leased(index, b"w", model, attempt, 5, 5)


def received(index, *, finish="stop", used=3, context=10, attempt=1):
    """It is whole."""
    return events.Received(index, attempt, finish, "engine 1", used, (), b"", b"", context)
