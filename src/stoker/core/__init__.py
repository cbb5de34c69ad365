"""Words every room uses: units, errors, clock, seed, options, registry, histogram, ledger, result."""
