"""From what was asked to what was done: options, plans, conduct, launchers, hosts."""
