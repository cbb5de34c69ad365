"""The stores themselves; each is found by its entry point in the group `stoker.stores`."""
