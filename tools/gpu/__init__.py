"""Work on GPUs: the zoo compiled without one; checks and benchmarks on a host that has one."""
