"""What a stream needs of the connection under it: chunks to write, a wire to write them to, and pacing for herds."""
