"""The store on SQLite: one file, one writing thread, many steps in one commit."""

from tracker.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
