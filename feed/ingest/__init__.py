"""Ingest: postings from public boards, fetched on schedule and kept true."""
