"""What others would write, as their documentation shows it: the same payload, the same readers, the same cores."""
