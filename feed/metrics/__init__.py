"""What operators count and time: the instruments, and how several processes share them."""
