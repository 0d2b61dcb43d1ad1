"""Outputs of the frozen part: extracted once, kept in a store."""
