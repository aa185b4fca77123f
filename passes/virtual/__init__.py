"""Virtual tensors (VTC, arXiv 2604.09558): operators that only move data become index maps."""
