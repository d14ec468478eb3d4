"""The approximate cache: this worker's shard, what is evicted from it, and fetching from others'."""
