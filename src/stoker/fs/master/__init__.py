"""Masters: one leads and answers, the others follow and stand by; and the metadata as clients see it from afar."""
