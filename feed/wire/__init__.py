"""What we add to Hypercorn: the connection under a stream, and a shutdown that drains first."""
