"""The typed face of the native kernels, and beside each its plain twin, which does the same without a compiler."""
