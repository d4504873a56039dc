"""`k2 bench pool`: the prompt tree and the directory of blocks, measured, with peers beside them."""
