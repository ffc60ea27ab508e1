-- All that a tracker must not forget. Times are milliseconds since 1970 (UTC), kudos are thousandths, digests are
-- SHA-256 of the signed bytes, keys are 32 bytes, job handles 16. No prompt is ever stored: a request holds only the
-- digest of its private part.
--
-- Rows lie in the order in which they came, and keys that are random (handles, digests, nonces) in indexes: a job
-- writes the same few pages as those that came with it, and one page of its own in each index of the tables below.
-- So no table has more indexes than the tracker looks things up by; what only an audit asks for has none.

CREATE TABLE horde (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    root        BLOB NOT NULL,
    delegation  BLOB NOT NULL,              -- the root's `serving` document
    epoch       INTEGER NOT NULL DEFAULT 0  -- raised by each restore from a backup
) STRICT;

CREATE TABLE rules (
    version   INTEGER PRIMARY KEY,
    digest    BLOB NOT NULL UNIQUE,
    document  BLOB NOT NULL
) STRICT;

-- A cache of sums over the postings, compared by audit; earned, spent and taken_free count since the beginning.
CREATE TABLE accounts (
    account        INTEGER PRIMARY KEY,
    since          INTEGER NOT NULL,
    balance        INTEGER NOT NULL DEFAULT 0,
    held           INTEGER NOT NULL DEFAULT 0,
    earned         INTEGER NOT NULL DEFAULT 0,
    spent          INTEGER NOT NULL DEFAULT 0,
    taken_free     INTEGER NOT NULL DEFAULT 0,
    free_now       INTEGER NOT NULL DEFAULT 0,  -- free work taken, as it had decayed at free_at
    free_at        INTEGER NOT NULL DEFAULT 0,
    jobs_done      INTEGER NOT NULL DEFAULT 0,
    jobs_received  INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE keys (
    key      BLOB PRIMARY KEY,
    account  INTEGER NOT NULL REFERENCES accounts,
    since    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_account ON keys (account);

-- Evidence, byte for byte as it was signed. What is said of one attempt lies together in the index.
CREATE TABLE documents (
    digest    BLOB NOT NULL,
    signer    BLOB NOT NULL,
    kind      TEXT NOT NULL,
    identity  BLOB NOT NULL,                -- nonce; or job and attempt; or version
    raw       BLOB NOT NULL,
    UNIQUE (identity, kind, signer)
) STRICT;

-- Proof that a key signed two different things under one identity.
CREATE TABLE equivocations (
    digest  BLOB PRIMARY KEY,
    first   BLOB NOT NULL,                  -- digest of the document that was taken
    taken   INTEGER NOT NULL,
    raw     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Found by its signer and nonce through its document.
CREATE TABLE requests (
    request         BLOB NOT NULL UNIQUE,   -- digest of the document
    signer          BLOB NOT NULL,
    nonce           BLOB NOT NULL,
    job_key         BLOB NOT NULL UNIQUE,
    payer           INTEGER NOT NULL REFERENCES accounts,
    origin          TEXT NOT NULL,          -- whom fairness and limits count: the account, or a block of addresses
    public          BLOB NOT NULL,
    private_digest  BLOB NOT NULL
) STRICT;

CREATE TABLE jobs (
    job        BLOB NOT NULL UNIQUE,
    request    BLOB NOT NULL REFERENCES requests (request),
    number     INTEGER NOT NULL,            -- which of the request's n
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'leased', 'delivered', 'settled', 'refunded', 'cancelled',
                                              'expired', 'failed')),
    reason     TEXT NOT NULL DEFAULT '',    -- why it ended
    attempt    INTEGER NOT NULL DEFAULT 0,  -- the latest
    failed     INTEGER NOT NULL DEFAULT 0,  -- attempts that count towards the limit
    held       INTEGER NOT NULL,            -- what the hold still contains
    score      INTEGER NOT NULL,            -- rank, fixed at admission
    anonymous  INTEGER NOT NULL,
    admitted   INTEGER NOT NULL,
    changed    INTEGER NOT NULL,            -- since when it has been in this state
    waited     INTEGER NOT NULL DEFAULT 0,  -- how long it waited before that
    cancelled  INTEGER NOT NULL DEFAULT 0,  -- when the requester called it off
    excluded   BLOB NOT NULL DEFAULT x'',   -- keys of workers that shall not get it again, one after the other
    settled    INTEGER NOT NULL DEFAULT 0,  -- the attempt that was paid
    signer     BLOB NOT NULL                -- of the request
) STRICT;

CREATE INDEX jobs_by_request ON jobs (request, number);
-- What a peer has under way is asked at each of its connections: it must not cost more the more it has asked for
-- before. A tracker that starts reads all of it.
CREATE INDEX jobs_open ON jobs (signer, request) WHERE state IN ('waiting', 'leased', 'delivered');

CREATE TABLE attempts (
    job         BLOB NOT NULL REFERENCES jobs (job),
    attempt     INTEGER NOT NULL,
    worker      BLOB NOT NULL,
    owner       INTEGER NOT NULL REFERENCES accounts,
    model       TEXT NOT NULL,
    lease       BLOB NOT NULL,              -- digest
    stage       TEXT NOT NULL CHECK (stage IN ('pushed', 'accepted', 'opened', 'ended')),
    issued      INTEGER NOT NULL,
    deadline    INTEGER NOT NULL,
    rules       INTEGER NOT NULL,
    price       INTEGER NOT NULL,
    paid        INTEGER NOT NULL,
    free        INTEGER NOT NULL,           -- minted for the worker if it is settled in full
    uncovered   INTEGER NOT NULL,           -- what of the price the hold did not cover
    tax         INTEGER NOT NULL,           -- what of the tax the hold covers
    reserved    INTEGER NOT NULL,           -- what of the day's budget is set aside for it now
    receipt     BLOB NOT NULL DEFAULT x'',  -- digest
    UNIQUE (job, attempt)
) STRICT;

-- What the daily budget still bears: reserved for leases, minted by settlements.
CREATE TABLE mint_days (
    day       INTEGER PRIMARY KEY,
    reserved  INTEGER NOT NULL DEFAULT 0,
    minted    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The ledger: append-only, leaf by leaf.
CREATE TABLE entries (
    entry     INTEGER PRIMARY KEY,
    leaf      BLOB NOT NULL,
    hash      BLOB NOT NULL,
    evidence  BLOB NOT NULL
) STRICT;

CREATE TABLE checkpoints (
    size      INTEGER PRIMARY KEY,
    document  BLOB NOT NULL
) STRICT;

-- Settlements of former serving keys that were entered again after a restore.
CREATE TABLE recovered (
    settlement  BLOB PRIMARY KEY,           -- digest
    signer      BLOB NOT NULL,
    entry       INTEGER NOT NULL,
    charged     INTEGER,                    -- the entry by which its payer was charged
    day         INTEGER NOT NULL,           -- whose mint it took
    minted      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX recovered_by_day ON recovered (signer, day);
