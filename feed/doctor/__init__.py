"""The doctor: looks at a database and at an address as a feed needs them, and says what to do."""
