"""How the service runs: sockets, TLS certificate, Hypercorn's configuration, signals, worker processes and their master."""
