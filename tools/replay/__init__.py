"""What two commits make of the same models: decisions and generated code, side by side."""
