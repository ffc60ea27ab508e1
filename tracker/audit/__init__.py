"""The audit: everything that the ledger says, computed again from the evidence that lies beside it.

It reads the database by a connection of its own that cannot write, within one snapshot, so that it also works while a
tracker serves. It trusts nothing but the root key: stored sums are caches that it compares.
"""

from tracker.audit.audit import audit
from tracker.audit.head import Head, read_head
from tracker.audit.report import Finding, Report

__all__ = ["Finding", "Head", "Report", "audit", "read_head"]
