"""The one translation of a command's errors into its text and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from tracker.commands.exits import CommandError


@contextmanager
def guarded() -> Iterator[None]:
    """An error of a command becomes its text and its exit code."""
    try:
        yield
    except CommandError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(error.code)
