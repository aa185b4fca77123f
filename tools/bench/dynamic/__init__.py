"""Kernels for unknown sizes against kernels made for each size: MikPoly's protocol on a CPU.

MikPoly (ASPLOS 2024), section 5: shapes are drawn from the ranges of its tables. One kernel per
weight, or per layer, is compiled for any size; at every shape it takes turns with the kernel
compiled for that shape alone, with ONNX Runtime and with oneDNN.
"""
