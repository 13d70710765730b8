"""The load generator behind `feed bench`."""
