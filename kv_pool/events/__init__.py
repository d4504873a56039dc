"""Events of engines: what vLLM and SGLang say about their blocks becomes rows of the directory.

::

    frames ──▶ stream (gaps, restarts) ──▶ wire (both forms) ──▶ engine (books, orphans) ──▶ actions
                    │
                    └──▶ ask for a replay

``wire``    decodes a batch, in whatever form, into three kinds of events
``stream``  lets batches pass in order, notices what is missing, and never goes on silently
``engine``  one engine: events in, actions for the directory out

Nothing here opens a socket: `kv_pool.edge` does.
"""
