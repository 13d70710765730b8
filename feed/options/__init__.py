"""The settings, a file for each room; `feed.settings` puts them together."""
