"""One narrow interface to every place bytes can lie, its backends, and layers that wrap them."""
