"""Measurements of candidates, as a data set for the cost model.

python -m tools.collect draw 500 --seed 1 -o build/collect     # which workloads
python -m tools.collect build build/collect                    # their candidates, as libraries
python -m tools.collect measure build/collect --data data/cpu  # on this machine, resumable
python -m tools.collect pack data/cpu -o tools/collect/data/cpu.parquet
"""
