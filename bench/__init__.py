"""Measurements on real processes, and the peers they run beside.

A benchmark reaches the store only as a user does: a node in its own process, the public client in
another. Every figure is printed with what decides it: the cores, whether each commit was synced to
disk, the number of requests in flight, and the declared clock bound, since the commit wait is part
of the latency. A peer (etcd) runs on the same idle machine, one after the other, with the same
sizes, and the ratio is printed beside both figures.
"""
