"""What a posting, an event, a filter, a query, a cursor and a frame are: the nouns, without any I/O."""
