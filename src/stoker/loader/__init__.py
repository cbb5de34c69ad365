"""From a manifest and a store to batches: order, fetch, decode, batch, resume, and where the time went."""
