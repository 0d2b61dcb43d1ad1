"""Many images: ordered streams and tables in, tables out."""
