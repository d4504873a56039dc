"""Verbs of `k2` that need a worker: `k2 serve` runs one, `k2 chat` talks to one.

Modules of this package import neither torch nor a model when they are loaded, so the list of verbs stays quick.
"""
