"""`potluck audit`: a horde's ledger, checked by anybody from what is public and from what this peer was told."""
