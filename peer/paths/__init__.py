"""Ways from a requester to a worker: direct, punched through their routers, or relayed; all end in the same TLS."""
