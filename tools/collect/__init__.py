"""Measurements of candidates, as a data set for the cost model.

python -m tools.collect build build/collect --count 500        # candidates, as libraries
python -m tools.collect measure build/collect --data data/cpu  # on this machine, resumable
python -m tools.collect pack data/cpu -o tools/collect/data/cpu.parquet
"""
