"""Public boards as they are played on this machine: scripted postings, in each source's shape, with faults on purpose."""
