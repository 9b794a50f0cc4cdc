"""Try a checkout on a machine with a GPU and no network: its gpu tests, NCCL, and the GPU rows of the benchmarks."""
