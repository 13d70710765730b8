"""Everything that speaks SQL: from the inbox to batches of events, and the postings themselves."""
