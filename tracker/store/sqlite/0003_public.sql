-- Documents behind public entries, found by their digest for the export of the ledger: there are few.

CREATE INDEX documents_public ON documents (digest) WHERE kind IN ('act', 'award', 'epoch');
