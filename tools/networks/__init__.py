"""Networks that are not in the zoo, exported with random weights: ``python -m tools.networks``."""
