"""Access control: credentials, the grants that they stand for, and how they expire or are revoked."""
