"""What tracker and peers must agree on, or compute alike: identities, signed messages, prices, postings, proofs.

`docs/protocol.md` is the standard that this package follows. Nothing in here opens a socket, a database or a GPU.
"""
