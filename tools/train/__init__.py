"""The learned cost model: trained from a data set, judged on workloads that it never saw.

python -m tools.train fit tools/collect/data/cpu.parquet -o schedules/cost/weights/cpu.json
python -m tools.train report tools/collect/data/cpu.parquet -o build/cost
"""
