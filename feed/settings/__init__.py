"""Every setting of the service, a file for each group."""
