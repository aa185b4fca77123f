"""Quantized networks to integer kernels: QDQ form in, products of bytes and requantization out."""
