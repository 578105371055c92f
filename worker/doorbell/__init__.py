"""The worker's side of the doorbell: hearing rings, watching arq's queue, doing without Redis."""
