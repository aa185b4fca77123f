"""What becomes of movement in every network of the zoo: ``python -m tools.movement``."""
