"""Drawings of the numbers: SVG, PNG, and CSV."""
