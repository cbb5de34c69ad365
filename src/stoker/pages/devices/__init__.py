"""Pages on devices: copies in the memory of a GPU, kernels that compare them there, and the way of their changes."""
