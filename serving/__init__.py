"""Workers that compute, keep and exchange KV-cache blocks: the one home of torch.

Models, kernels, byte transports and the schedulers that place requests belong here. They know the
pool (``kv_pool``) and the store's client; no other package imports torch, so the store and its
client install without it. This package has no modules yet.
"""
