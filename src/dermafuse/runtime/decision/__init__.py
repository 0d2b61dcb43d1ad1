"""From logits to what is said: temperature, label, prediction set, out of distribution."""
