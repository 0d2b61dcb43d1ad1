"""The self-contained page: its sections, their facts, the gallery."""
