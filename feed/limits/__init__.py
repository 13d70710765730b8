"""Limits on how often a client may do something."""
