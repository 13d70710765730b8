"""The changes that feed makes to Hypercorn 0.18: connections, HTTP/1.1, HTTP/2, and a shutdown that drains first."""
