"""The worker's HTTP API, in the words of OpenAI's, so that existing clients work unchanged.

::

    POST /v1/chat/completions   a conversation; the answer whole, or as server-sent events
    POST /v1/completions        a prompt, as text or as tokens
    GET  /v1/models             what is served here
    GET  /health                503 once the engine has failed
    GET  /metrics               for Prometheus

``requests`` says what is understood, ``answers`` what comes back, ``exchange`` is one HTTP exchange over
ASGI, ``app`` the routes, ``metrics`` the figures, ``server`` runs it all in uvicorn.

A field that is not understood is ignored where ignoring it changes nothing that the caller could notice, and
refused where it would (tools, several answers, forced JSON). Everything is bounded: bodies, connections,
requests that wait. Who goes away is cancelled, whether the answer streams or not. The application
knows no engine: it asks whoever can `generate`, so a router over many workers has the same face.
"""
