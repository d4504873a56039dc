"""Spaces of the settled store that a node uses."""

SPACE = 1
"""User keys."""
