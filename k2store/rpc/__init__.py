"""Everything between a socket and the node engine.

::

    client library ── Dialer ──┐                         ┌── Listener ── Handler (the engine)
                               │  frames of bytes, one   │
                               └── stream a connection ──┘
    any gRPC client ── unary methods ── in-process client ── the same engine

- `transport`: the port, and nothing else, that clients and engine know;
- `stream`, `grpc_transport`: its implementation over gRPC;
- `failures`: the error tree to and from session frames, for the light client;
- `status`: the error tree to and from gRPC status with `google.rpc` details.

Importing this package imports nothing: the light client takes only what it needs.
"""
