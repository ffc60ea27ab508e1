"""The tracker: who is here, who asks, who is matched, what is owed.

Decisions are plain functions and small classes (`lifecycle`, `matching`, `ledger`, `session`); `store` keeps what must
last; `coordinator` ties them together; `web` owns the sockets and `__main__` the commands.
"""
