"""The fan-out hands batches of events to every subscriber. It knows no database and no network protocol."""
