-- What a peer has under way is asked at each of its connections: it must not cost more the more it has asked for before.

ALTER TABLE jobs ADD COLUMN signer BLOB NOT NULL DEFAULT x'';  -- of the request

UPDATE jobs SET signer = (SELECT r.signer FROM requests r WHERE r.request = jobs.request);

CREATE INDEX jobs_open ON jobs (signer, request) WHERE state IN ('waiting', 'leased', 'delivered');
