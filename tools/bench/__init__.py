"""Measure tvmext against ONNX Runtime and torch, on operators and on whole models.

    python -m tools.bench ops                        # operator tables
    python -m tools.bench ops 'gemm/*' --threads 1,2 # some of them, on one thread and on two
    python -m tools.bench model net.onnx --dim batch=1
    python -m tools.bench oracle 'gemm/128*'            # the picked tile against the best

All contenders run in turns in one process. A probe of the processor's speed before and after every
sample tells whether the machine was disturbed; without enough undisturbed samples a row says
"noisy" instead of a ratio.
"""
