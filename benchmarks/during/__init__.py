"""Load while something happens to what serves: `python -m benchmarks.during rollout|triton|store`."""
