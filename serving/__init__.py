"""Workers that compute, keep and exchange KV-cache blocks: the one home of torch.

::

    model        weights, tokenizer, the Llama that turns tokens into keys, values and logits
    attention    where keys and values are kept and attended: paged, sparse, reference; kernels

A model knows nothing of pages. In every layer it hands its queries, keys and values, all before the
rotation by their positions, to an *attention object*, and takes back what was attended. So one model
runs over a paged pool, over an arena that a retention policy empties, or over linked fragments, and
has no branch for any of them.

Workers know the pool (``kv_pool``) and the store's client; no other package imports torch, so the
store and its client install without it.
"""
