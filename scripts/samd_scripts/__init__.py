"""What the scripts are made of: the demo, the benchmarks, and the stack that both and the tests start."""
