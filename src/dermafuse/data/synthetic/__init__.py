"""A generated data set: images, lesions, folder."""
