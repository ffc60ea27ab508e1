-- Proposals to change rules, who has a voice in each, and the voices.

CREATE TABLE proposals (
    number   INTEGER PRIMARY KEY,            -- from 1
    digest   BLOB NOT NULL UNIQUE,
    signer   BLOB NOT NULL,
    nonce    BLOB NOT NULL,
    account  INTEGER NOT NULL REFERENCES accounts,
    rules    INTEGER NOT NULL,               -- the version by which the vote goes
    was      TEXT NOT NULL,                  -- the rule's value in that version, JSON
    opened   INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    size     INTEGER NOT NULL,               -- of the ledger by which voices were counted
    outcome  BLOB NOT NULL DEFAULT x'',      -- the document, when the vote has ended
    answer   BLOB NOT NULL DEFAULT x''       -- the operator's newest document
) STRICT;

CREATE INDEX proposals_open ON proposals (until) WHERE outcome = x'';

CREATE TABLE voices (
    proposal  INTEGER NOT NULL REFERENCES proposals (number),
    account   INTEGER NOT NULL REFERENCES accounts,
    earned    INTEGER NOT NULL,              -- within the days that count, thousandths
    version   INTEGER NOT NULL DEFAULT 0,    -- of its vote; 0: it has not voted
    signer    BLOB NOT NULL DEFAULT x'',
    digest    BLOB NOT NULL DEFAULT x'',
    yes       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (proposal, account)
) STRICT, WITHOUT ROWID;
