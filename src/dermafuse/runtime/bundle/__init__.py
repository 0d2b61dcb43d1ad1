"""The model bundle: files, schema, arrays, reading and writing."""
