"""Counts of n-grams of integers: TfIdfVectorizer."""

from __future__ import annotations

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from ..builder import Call, Converter, DeclinedError, Result

MAX_COLUMNS = 1 << 24


def _tf_idf(call: Call) -> Result:
    """y[b, g] = how often n-gram g is found in row b, its elements up to `skip` others apart.

    Mode TF counts, IDF says whether it is found, by its weight, TFIDF multiplies both.
    """
    pool, starts = call.attr("pool_int64s"), list(call.attr("ngram_counts", ()))
    indexes = np.array(call.attr("ngram_indexes", ()), np.int64)
    mode, skips = call.attr("mode"), call.attr("max_skip_count", 0)
    lengths = range(call.attr("min_gram_length", 1), call.attr("max_gram_length", 1) + 1)
    if pool is None or len(indexes) == 0 or mode not in ("TF", "IDF", "TFIDF"):
        raise DeclinedError("n-grams of strings, or none")
    *rows, size = call.fixed(call.shape(0), "the text")
    batch = rows[0] if rows else 1
    x = call.emit(relax.op.astype(call.emit(call.reshape(call.tensor(0), (batch, size))), "int64"))
    parts: list[relax.Expr] = []
    order: list[int] = []
    seen = 0
    for n, (begin, end) in enumerate(zip(starts, [*starts[1:], len(pool)]), 1):
        grams = np.array(pool[begin:end], np.int64).reshape(-1, n)
        places = indexes[seen : seen + len(grams)]
        seen += len(grams)
        if n in lengths and len(grams):
            order += places.tolist()
            parts.append(_counts(call, x, grams, skips))
    (width,) = call.fixed(call.out_shape()[-1:], "the result")
    if width > MAX_COLUMNS:
        raise DeclinedError(f"a result of {width} columns")
    columns = np.full(width, len(order), np.int64)
    columns[order] = np.arange(len(order))
    nothing = call.emit(relax.op.zeros((batch, 1), "float32"))
    counts = call.emit(relax.op.concat([*parts, nothing], 1))
    places_ = call.constant(columns, "columns")
    counts = call.emit(relax.op.take(counts, places_, 1, mode="fast"))
    if mode == "IDF":
        found = call.emit(relax.op.greater(counts, relax.const(0.0, "float32")))
        counts = call.emit(relax.op.astype(found, "float32"))
    weights = call.attr("weights")
    if mode != "TF" and weights:
        by_column = np.ones(width, np.float32)
        by_column[indexes] = weights
        counts = call.emit(relax.op.multiply(counts, call.constant(by_column, "weights")))
    return call.reshape(counts, call.out_shape())


def _counts(call: Call, x: relax.Expr, grams: np.ndarray, skips: int) -> relax.Expr:
    count, n = grams.shape

    def counted(x: te.Tensor, grams: te.Tensor) -> te.Tensor:
        batch, size = x.shape
        start = te.reduce_axis((0, size), "start")
        skip = te.reduce_axis((0, skips + 1 if n > 1 else 1), "skip")

        def element(b: Expr, g: Expr) -> Expr:
            step = skip + 1
            inside = start + step * (n - 1) < size
            found = [
                x(b, tirx.min(start + step * k, size - 1)).equal(grams(g, k)) for k in range(n)
            ]
            one, zero = tirx.const(1, "float32"), tirx.const(0, "float32")
            return te.sum(tirx.Select(tirx.all(inside, *found), one, zero), axis=[start, skip])

        return te.compute((batch, count), element, name="n_grams")

    pool = call.constant(grams, f"grams_{n}")
    return call.emit(call.te(counted, x, pool, name="n_grams"))


CONVERTERS: dict[str, Converter] = {"TfIdfVectorizer": _tf_idf}
