"""How good a model is, for whom, and how sure that is: NumPy and scikit-learn only."""
