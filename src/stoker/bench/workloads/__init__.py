"""What is run: the workloads, the emulated accelerator and the metrics of both."""
