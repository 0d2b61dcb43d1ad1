"""From a folder of images and a table to records: layouts, descriptions, guesses."""

from dermafuse.data.readers.read import read_dataset, read_training_data

__all__ = ["read_dataset", "read_training_data"]
