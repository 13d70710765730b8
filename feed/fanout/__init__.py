"""From batches of events to every subscriber: knows no database and no protocol."""
