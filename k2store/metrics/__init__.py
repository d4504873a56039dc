"""Metrics: one table of what is told, and its text for Prometheus.

Nothing is counted here. The engine keeps plain integers; a scrape reads them (`node.report`) and
the table in `catalogue` turns them into samples, so a metric costs an operation nothing beyond the
addition it needed anyway. `docs/metrics.md` is made from the same table.
"""
