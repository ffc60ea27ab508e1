-- Acts of moderators and operators in their public log, and what people answer to them.

CREATE TABLE acts (
    number     INTEGER PRIMARY KEY,          -- its place in the log, from 1
    digest     BLOB NOT NULL UNIQUE,
    signer     BLOB NOT NULL,
    nonce      BLOB NOT NULL,
    act        TEXT NOT NULL,                -- as in the document; `award` for awards
    account    INTEGER NOT NULL,             -- whom it concerns; 0: nobody in particular
    until      INTEGER NOT NULL,             -- its last moment; 0: no end
    about      BLOB NOT NULL,                -- digest of the act that it lifts, agrees to or upholds
    time       INTEGER NOT NULL,             -- when it was taken
    since      INTEGER NOT NULL,             -- when it came into force; 0: it waits for a second signature
    entry      INTEGER NOT NULL,             -- of the ledger
    agreed     BLOB NOT NULL DEFAULT x'',    -- digest of the second signature
    ended      INTEGER NOT NULL DEFAULT 0,   -- when it was lifted
    ended_by   BLOB NOT NULL DEFAULT x''     -- digest of the act that lifted it
) STRICT;

CREATE INDEX acts_of_account ON acts (account);
CREATE INDEX acts_standing ON acts (act) WHERE act IN ('limit', 'suspend', 'ban', 'pause', 'block') AND ended = 0;

CREATE TABLE appeals (
    digest    BLOB PRIMARY KEY,
    signer    BLOB NOT NULL,
    nonce     BLOB NOT NULL,
    account   INTEGER NOT NULL REFERENCES accounts,
    about     BLOB NOT NULL REFERENCES acts (digest),
    time      INTEGER NOT NULL,
    answered  BLOB NOT NULL DEFAULT x''      -- digest of the act that lifted or upheld what it is about
) STRICT, WITHOUT ROWID;

CREATE INDEX appeals_about ON appeals (about) WHERE answered = x'';
CREATE INDEX appeals_open ON appeals (time) WHERE answered = x'';
