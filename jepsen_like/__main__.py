"""`python -m jepsen_like ...` is `k2 check ...`."""

from jepsen_like.cli import check

check(prog_name="k2 check")
