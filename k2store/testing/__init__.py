"""Tools for testing what is built on K2store, and K2store itself."""
