"""Who asks a KV cache for what, and when: drawn users, or recorded traces."""
