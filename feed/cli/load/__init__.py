"""Load for measurements: cheap readers in processes of their own, writers at a pace, and what a process uses."""
