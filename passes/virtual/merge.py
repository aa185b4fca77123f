"""Updates in place that can be done at the same time, as one kernel.

    k = call_tir_inplace(f, (.., k0), [i])
    v = call_tir_inplace(g, (.., v0), [j])     becomes
                                               t = call_tir_inplace(f_and_g, (.., k0, v0), [i, j])
                                               k, v = t[0], t[1]

Each writes a few elements, so that its call costs more than its work; and what only moves a new row
into one cache is done by the kernel that computes that of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from .join import reads
from .joining import fused, is_tensor
from .update import update_in_place


@dataclass(frozen=True, eq=False)
class Update:
    """What is done in place: the binding as it was, a call whose result has memory of its own,
    and the argument that is written to instead. `same` are all variables of that memory."""

    binding: relax.VarBinding
    target: relax.Var
    same: frozenset[relax.Var]

    def read_by(self, reader: relax.VarBinding) -> bool:
        """Whether `reader` reads the memory, before or after the update."""
        return not {self.binding.var, *self.same}.isdisjoint(reads(reader.value))


def merged(
    builder: relax.BlockBuilder,
    bindings: Sequence[relax.VarBinding],
    updates: Mapping[relax.Var, Update],
) -> list[relax.VarBinding]:
    """The bindings of a block with its updates in place, those that may be together in one.

    New functions are added to the module of `builder`.
    """
    done: list[relax.VarBinding] = []
    group: list[Update] = []
    for binding in bindings:
        update = updates.get(binding.var)
        if any(one.read_by(binding) or (update and update.read_by(one.binding)) for one in group):
            done += _as_one(builder, group)
            group = []
        if update is None:
            done.append(binding)
        else:
            group.append(update)
    return done + _as_one(builder, group)


def _as_one(builder: relax.BlockBuilder, group: Sequence[Update]) -> list[relax.VarBinding]:
    """One call for all updates, and its results."""
    if not group:
        return []
    mod = builder.get()
    calls = [update.binding.value for update in group]
    func, args = (mod[calls[0].args[0]], list(calls[0].args[1].fields))
    if len(group) > 1:
        func, args = _together(mod, group)
    written = [next(k for k, a in enumerate(args) if a.same_as(u.target)) for u in group]
    func = update_in_place(func, [func.params[k] for k in written])
    callee = builder.add_func(func, "_and_".join(call.args[0].name_hint for call in calls))
    types = [call.ty for call in calls]
    only = types[0] if len(group) == 1 else types
    made = relax.op.call_tir_inplace(callee, relax.Tuple(args), written, only)
    if len(group) == 1:
        return [relax.VarBinding(group[0].binding.var, made)]
    both = relax.DataflowVar("updated", relax.TupleType(types))
    items = [relax.TupleGetItem(both, k) for k in range(len(group))]
    named = [relax.VarBinding(update.binding.var, item) for update, item in zip(group, items)]
    return [relax.VarBinding(both, made), *named]


def _together(
    mod: tvm.IRModule, group: Iterable[Update]
) -> tuple[tvm.tirx.PrimFunc, list[relax.Expr]]:
    """The kernels of several calls as one with several outputs, and what it is called with."""
    bindings = [update.binding for update in group]
    args = (arg for b in bindings for arg in b.value.args[1].fields if is_tensor(arg))
    outside = {arg: relax.Var(f"arg{k}", arg.ty) for k, arg in enumerate(dict.fromkeys(args))}
    builder = relax.BlockBuilder()
    inside = []
    for binding in bindings:
        call = binding.value
        callee = builder.add_func(mod[call.args[0]], call.args[0].name_hint)
        fields = relax.Tuple([outside.get(arg, arg) for arg in call.args[1].fields])
        made = relax.Call(call.op, [callee, fields, *call.args[2:]], call.attrs, call.ty_args)
        var = relax.DataflowVar(binding.var.name, binding.var.ty)
        inside.append(relax.VarBinding(var, made))
    results = relax.Tuple([binding.var for binding in inside])
    types = relax.TupleType([binding.var.ty for binding in inside])
    inside.append(relax.VarBinding(relax.Var("results", types), results))
    module, joint = fused(builder, inside, outside)
    back = dict(zip(module["main"].params, outside))
    return module[joint.value.args[0]], [back.get(a, a) for a in joint.value.args[1].fields]
