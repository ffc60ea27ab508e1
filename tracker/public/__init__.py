"""The ledger as anybody may see it: entries without who served whom, and proofs over their tree."""
