"""The torture test: what was committed against what every subscriber saw, while everything around it breaks."""
