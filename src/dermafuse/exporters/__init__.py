"""A bundle for programs of others: formats, int8, the proof that each gives the same answers."""
