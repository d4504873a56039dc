"""The wire as Python, made from `proto/` by `./k2 proto`; do not edit."""
