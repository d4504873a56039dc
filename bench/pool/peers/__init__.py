"""The peers: each started, loaded and ended by itself, on the chains that this package's own parts get.

Programs of the distribution are found on the path. Python packages that do not belong into this
project's environment are looked for in another one (``K2_BENCH_PEERS``, a virtual environment);
what runs inside them (`dynamo_tree`, `mooncake_store`) uses nothing but the standard library and the peer.
"""
