"""Writes a chunk to all subscribers of a group in one call: an optional extension in C, and the choice of the way."""
