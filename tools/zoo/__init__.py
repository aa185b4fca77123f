"""Every network of the zoo, compiled, verified and timed: ``python -m tools.zoo``."""
