"""From a folder of images and a clinical table to records, arrays and splits."""
