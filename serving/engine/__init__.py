"""The engine of a worker: many requests, one model, one pool of pages.

::

    submit ──▶ waiting ──admit──▶ running ──step──▶ running ... ──▶ finished
                 ▲  │                │  │
                 │  └─(pages wanted  │  └─(asked to)──▶ parked ──release──▶ finished
                 │     elsewhere)──▶ fetching ──arrived──▶ waiting
                 └────(out of pages)─┘

`Engine.step` does one round: the scheduler chooses tokens of running sequences and admits waiting ones
(`scheduler`), the model computes them in one call, sampling (`sampling`) chooses a next token for every
sequence that is through with what it has, text comes out (`text`). Prefill and decode are one thing: a
sequence has tokens without keys and values, a step computes some of them, and when none is left it gets
another one. A long prompt is computed in chunks beside the decoding of others.

A page that is full goes into the index of the pool at once, prompt or not. So a prompt finds what
anybody has computed before, concurrent requests share what they have in common, and a sequence that must
give way (*preemption*) loses no work: its full pages stay in the cache, go down the tiers if room is
needed, and come up again when it is its turn.

The core is synchronous and deterministic: no clock, no threads, chance from the request's seed. The same
requests in the same order give the same steps. `front` runs it in a thread and gives its tokens to asyncio.
Whoever moves pages between workers hooks in at three places: `Hooks` (prefill done, finished),
`RemotePrefix` (pages that are elsewhere), `Engine.adopt` (a sequence whose pages have been filled by
somebody else).

Two things make a sequence inexact, and its pages nobody else's: a prompt that is linked of compiled chunks
(`serving.linking.linker`), and an answer that is decoded under a retention policy (`serving.sparse.retention`).
"""
