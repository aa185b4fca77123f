"""Models of tables, of three libraries: ``python -m tools.networks.tables FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import lightgbm
import numpy as np
import onnxmltools
import skl2onnx
import xgboost
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVR


def main() -> int:
    folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
    x = rng.standard_normal((200, 6)).astype(np.float32)
    value, label = x[:, 0] * x[:, 1] + x[:, 2], (x[:, 0] + x[:, 3] > 0).astype(np.int64)
    given = [("x", FloatTensorType([None, 6]))]
    boosted_given = [("x", onnxmltools.convert.common.data_types.FloatTensorType([None, 6]))]
    regressors = {
        "boosting": GradientBoostingRegressor(n_estimators=20),
        "mlp": make_pipeline(
            StandardScaler(), MLPRegressor(hidden_layer_sizes=(16, 16), max_iter=50)
        ),
        "svr": make_pipeline(MinMaxScaler(), SVR()),
    }
    classifiers = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "forest": RandomForestClassifier(n_estimators=20, max_depth=6),
    }
    made = {name: model.fit(x, value) for name, model in regressors.items()}
    made |= {name: model.fit(x, label) for name, model in classifiers.items()}
    files = {}
    for name, model in made.items():
        options = {id(model): {"zipmap": False}} if name in classifiers else {}
        files[name] = skl2onnx.convert_sklearn(model, initial_types=given, options=options)
    boosted = lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(x, value)
    files["lightgbm"] = onnxmltools.convert_lightgbm(boosted, initial_types=boosted_given)
    trees = xgboost.XGBRegressor(n_estimators=20, max_depth=4).fit(x, value)
    files["xgboost"] = onnxmltools.convert_xgboost(trees, initial_types=boosted_given)
    for name, model in files.items():
        (folder / f"table_{name}.onnx").write_bytes(model.SerializeToString())
        print(name, *sorted({f"{n.domain}::{n.op_type}" for n in model.graph.node}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
