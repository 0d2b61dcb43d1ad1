"""Recipes, activation store, fitting, checkpoints: from records to a RUN folder."""
