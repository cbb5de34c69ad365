"""The journal: what changes a volume, in an order on which a majority of an etcd agrees, and copies that follow it."""
