"""Who may do what: credentials, the grants that they stand for, and their ends."""
