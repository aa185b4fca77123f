"""The function of a library that hands out its weights, as source in what C and C++ share.

It follows TVM's calling convention (tvm/ffi/c_api.h) and touches the tensors that `weights.objects`
lays out. For a GPU it hands out copies in the memory of the first one, which are made when they are
first asked for and live until ``tvmext_release_weights()``.
"""

from __future__ import annotations

_HEAD = """\
#include <stdint.h>
typedef struct {
  int32_t type;
  uint32_t zero;
  union { int64_t integer; void *object; } value;
} Any;
typedef struct { uint64_t references, words[8]; } Weight;
typedef struct { const char *data; uint64_t size; } Name;
enum { INTEGER = 1, TENSOR = 70 }; /* kTVMFFIInt, kTVMFFITensor */
#ifdef __cplusplus
extern "C" {
#endif
extern Weight tvmext_weights[], tvmext_weights_end[];
extern Weight *tvmext_copies[];
int TVMFFIFunctionGetGlobal(const Name *name, void **function);
int TVMFFIFunctionCall(void *function, Any *arguments, int32_t count, Any *result);
int TVMFFIObjectDecRef(void *object);
static void give(Weight *weight, Any *result) {
  __atomic_fetch_add(&weight->references, 1, __ATOMIC_RELAXED);
  result->type = TENSOR;
  result->zero = 0;
  result->value.object = weight;
}
"""

_COPY = """\
static int copy(Weight *weight, Weight **place) {
  static const char text[] = "vm.builtin.to_device";
  Name name;
  Any arguments[3], result;
  Weight *none = 0, *made;
  void *function = 0;
  int i, failed;
  name.data = text;
  name.size = sizeof(text) - 1;
  if (TVMFFIFunctionGetGlobal(&name, &function)) return -1;
  for (i = 0; i < 3; ++i) arguments[i].type = INTEGER, arguments[i].zero = 0;
  arguments[0].type = TENSOR;
  arguments[0].value.object = weight;
  arguments[1].value.integer = 2; /* kDLCUDA */
  arguments[2].value.integer = 0;
  result.type = 0;
  result.zero = 0;
  result.value.integer = 0;
  failed = TVMFFIFunctionCall(function, arguments, 3, &result);
  TVMFFIObjectDecRef(function);
  if (failed) return -1;
  made = (Weight *)result.value.object;
  if (!__atomic_compare_exchange_n(place, &none, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    TVMFFIObjectDecRef(made); /* another thread was first */
  return 0;
}
int __tvm_ffi_tvmext_release_weights(void *self, const Any *arguments, int32_t count, Any *result) {
  int64_t i;
  (void)self, (void)arguments, (void)count, (void)result;
  for (i = 0; i < tvmext_weights_end - tvmext_weights; ++i) {
    Weight *made = __atomic_exchange_n(&tvmext_copies[i], (Weight *)0, __ATOMIC_ACQ_REL);
    if (made) TVMFFIObjectDecRef(made);
  }
  return 0;
}
"""

_FUNCTION = """\
int __tvm_ffi_tvmext_weight(void *self, const Any *arguments, int32_t count, Any *result) {
  int64_t index = count == 1 ? arguments[0].value.integer : -1;
  (void)self;
  if (index < 0 || index >= tvmext_weights_end - tvmext_weights) return 0; /* None */
"""
_ON_CPU = "  give(&tvmext_weights[index], result);\n"
_ON_GPU = """\
  if (!__atomic_load_n(&tvmext_copies[index], __ATOMIC_ACQUIRE) &&
      copy(&tvmext_weights[index], &tvmext_copies[index])) return -1;
  give(tvmext_copies[index], result);
"""
_END = """\
  return 0;
}
#ifdef __cplusplus
}
#endif
"""


def source(on_gpu: bool) -> str:
    """The text of the function for libraries that run on the CPU, or on a GPU."""
    body = _ON_GPU if on_gpu else _ON_CPU
    return _HEAD + (_COPY if on_gpu else "") + _FUNCTION + body + _END
