"""Functions of a library that run the bodies of Loop, Scan and If, as source in what C and C++ share.

TVM's virtual machine has calls and branches, but no loops, and a recursive function of Relax takes
stack for every iteration. These functions call the machine's own functions instead:

    tvmext_choose(vm, then, else, condition, arguments...)
    tvmext_loop(vm, body, counts, {row shape, row dtype}..., fixed..., flag, state..., rest...)

``body(fixed..., flag, state..., rest...)`` returns ``(flag, state..., row...)`` and runs while the
flag, a tensor of one element, is true; counts are those of fixed, states and rows. The loop returns
``(state..., rows...)``, where rows of all iterations lie one after another in memory that doubles as
they come. Everything else, and what a flag is made of, is Relax. Source after TVM's calling
convention, as in weight_function.py.
"""

from __future__ import annotations

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#ifdef __cplusplus
extern "C" {
#endif
enum { NOTHING = 0, DTYPE = 5, TEXT = 8, OBJECTS = 64, SHAPE = 69 };
enum { MOST_DIMS = 64 };
typedef struct { uint64_t head[3]; const int64_t *data; uint64_t size; } Sizes; /* ffi::Shape */
typedef struct {
  uint64_t head[3];
  void *data;
  int32_t device[2], ndim;
  uint8_t code, bits;
  uint16_t lanes;
  const int64_t *shape;
} Array; /* ffi::Tensor */
typedef struct { Any storage, shape, dtype; int64_t bytes, capacity; } Rows;
int TVMFFIFunctionGetGlobal(const Name *name, void **function);
int TVMFFIFunctionCall(void *function, Any *arguments, int32_t count, Any *result);
int TVMFFIObjectDecRef(void *object);
int TVMFFIObjectIncRef(void *object);
void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message);

static int fail(const char *message) {
  TVMFFIErrorSetRaisedFromCStr("ValueError", message);
  return -1;
}
static Any integer(int64_t value) {
  Any any;
  any.type = INTEGER, any.zero = 0, any.value.integer = value;
  return any;
}
static void drop(Any *any) {
  if (any->type >= OBJECTS && any->value.object) TVMFFIObjectDecRef(any->value.object);
  any->type = NOTHING, any->zero = 0, any->value.integer = 0;
}
static Any again(Any any) {
  if (any.type >= OBJECTS) TVMFFIObjectIncRef(any.value.object);
  return any;
}
static int call(const char *text, Any *arguments, int32_t count, Any *result) {
  Name name;
  void *function = 0;
  int failed;
  name.data = text, name.size = strlen(text);
  result->type = NOTHING, result->zero = 0, result->value.integer = 0;
  if (TVMFFIFunctionGetGlobal(&name, &function)) return -1;
  if (!function) return fail("TVM's runtime lacks a function that loops need");
  failed = TVMFFIFunctionCall(function, arguments, count, result);
  TVMFFIObjectDecRef(function);
  return failed;
}
static int is_true(Any condition, int *truth) {
  Any result;
  if (call("vm.builtin.read_if_cond", &condition, 1, &result)) return -1;
  *truth = result.value.integer != 0;
  return 0;
}
static int part_of(Any tuple, int64_t place, Any *part) {
  Any arguments[2];
  arguments[0] = tuple, arguments[1] = integer(place);
  return call("vm.builtin.tuple_getitem", arguments, 2, part);
}
static int shape_of(const int64_t *sizes, int32_t count, Any *shape) {
  Any dims[MOST_DIMS];
  int32_t i;
  if (count > MOST_DIMS) return fail("a tensor has too many dims");
  for (i = 0; i < count; ++i) dims[i] = integer(sizes[i]);
  return call("ffi.Shape", dims, count, shape);
}
/* A tensor over `count` rows of the storage from `first` on; `row`: without the dim that counts. */
static int rows_at(Rows *rows, int64_t first, int64_t count, int row, Any *tensor) {
  const Sizes *sizes = (const Sizes *)rows->shape.value.object;
  int64_t dims[MOST_DIMS];
  Any arguments[4];
  int failed;
  if (sizes->size + 1 > MOST_DIMS) return fail("a tensor has too many dims");
  dims[0] = count;
  memcpy(dims + 1, sizes->data, sizes->size * sizeof(int64_t));
  if (shape_of(dims + row, (int32_t)sizes->size + 1 - row, &arguments[2])) return -1;
  arguments[0] = rows->storage, arguments[1] = integer(first * rows->bytes);
  arguments[3] = rows->dtype;
  failed = call("vm.builtin.alloc_tensor", arguments, 4, tensor);
  drop(&arguments[2]);
  return failed;
}
static int reserve(Any vm, Rows *rows, int64_t capacity) {
  static const char scope[] = "global";
  int64_t bytes;
  Any arguments[5];
  int failed;
  if (__builtin_mul_overflow(capacity, rows->bytes, &bytes) || bytes > (int64_t)1 << 46)
    return fail("the results of a loop need too much memory");
  bytes = bytes > 0 ? bytes : 1;
  arguments[0] = vm, arguments[2] = integer(0), arguments[3] = rows->dtype;
  arguments[3].type = DTYPE, arguments[3].value.integer = 1 | 8 << 8 | 1 << 16; /* uint8 */
  arguments[4].type = TEXT, arguments[4].zero = 0, arguments[4].value.object = (void *)scope;
  if (shape_of(&bytes, 1, &arguments[1])) return -1;
  drop(&rows->storage);
  failed = call("vm.builtin.alloc_storage", arguments, 5, &rows->storage);
  drop(&arguments[1]);
  rows->capacity = capacity;
  return failed;
}
static int copy_rows(Any from, Any to) {
  Any arguments[2], nothing;
  arguments[0] = from, arguments[1] = to;
  return call("runtime.TVMTensorCopyFromTo", arguments, 2, &nothing);
}
/* Takes the shape of rows from the first one. */
static int begin_rows(Rows *rows, Any row) {
  const Array *array = (const Array *)row.value.object;
  int64_t count = 1;
  int32_t i;
  for (i = 0; i < array->ndim; ++i)
    if (__builtin_mul_overflow(count, array->shape[i], &count)) return fail("a row is too large");
  rows->bytes = count * ((array->bits * array->lanes + 7) / 8);
  drop(&rows->shape);
  return shape_of(array->shape, array->ndim, &rows->shape);
}
static int append(Any vm, Rows *rows, int64_t number, Any row) {
  const Array *array = (const Array *)row.value.object;
  const Sizes *sizes;
  Any to;
  int failed;
  if (row.type != TENSOR) return fail("a result of a loop is not a tensor");
  if (number == 0 && begin_rows(rows, row)) return -1;
  sizes = (const Sizes *)rows->shape.value.object;
  if (sizes->size != (uint64_t)array->ndim ||
      memcmp(sizes->data, array->shape, sizes->size * sizeof(int64_t)))
    return fail("the iterations of a loop give results of different sizes, which do not stack");
  if (number == rows->capacity) {
    Any old, into;
    Rows before = *rows;
    rows->storage.type = NOTHING;
    failed = reserve(vm, rows, number ? 2 * number : 16);
    if (!failed && number && rows->bytes) {
      old.type = into.type = NOTHING;
      failed = rows_at(&before, 0, number, 0, &old) || rows_at(rows, 0, number, 0, &into) ||
               copy_rows(old, into);
      drop(&old), drop(&into);
    }
    drop(&before.storage);
    if (failed) return -1;
  }
  if (!rows->bytes) return 0;
  if (rows_at(rows, number, 1, 1, &to)) return -1;
  failed = copy_rows(row, to);
  drop(&to);
  return failed;
}
int __tvm_ffi_tvmext_choose(void *self, const Any *arguments, int32_t count, Any *result) {
  Any *passed;
  int truth, failed;
  (void)self;
  if (count < 4) return fail("a choice needs a condition and two functions");
  if (is_true(arguments[3], &truth)) return -1;
  passed = (Any *)malloc(sizeof(Any) * (size_t)count);
  if (!passed) return fail("out of memory");
  passed[0] = arguments[0], passed[1] = arguments[truth ? 1 : 2];
  memcpy(passed + 2, arguments + 4, sizeof(Any) * (size_t)(count - 4));
  failed = call("vm.builtin.invoke_closure", passed, count - 2, result);
  free(passed);
  return failed;
}
/* One iteration: new flag and states in `passed`, rows appended. */
static int iterate(Any *passed, int32_t count, int32_t fixed, int32_t states, Rows *rows,
                   int32_t stacked, int64_t number) {
  Any result, row;
  int32_t i;
  int failed = call("vm.builtin.invoke_closure", passed, count, &result);
  for (i = 0; !failed && i <= states; ++i) {
    drop(&passed[2 + fixed + i]);
    failed = part_of(result, i, &passed[2 + fixed + i]);
  }
  for (i = 0; !failed && i < stacked; ++i) {
    failed = part_of(result, 1 + states + i, &row);
    if (!failed) failed = append(passed[0], &rows[i], number, row);
    drop(&row);
  }
  drop(&result);
  return failed;
}
int __tvm_ffi_tvmext_loop(void *self, const Any *arguments, int32_t count, Any *result) {
  int32_t fixed, states, stacked, first, left, i;
  int64_t number = 0;
  int failed = 0, truth = 0;
  Any *passed, *results;
  Rows *rows;
  (void)self;
  if (count < 5) return fail("a loop needs a body");
  fixed = (int32_t)arguments[2].value.integer, states = (int32_t)arguments[3].value.integer;
  stacked = (int32_t)arguments[4].value.integer;
  first = 5 + 2 * stacked, left = count - first;
  if (fixed < 0 || states < 0 || stacked < 0 || left < fixed + 1 + states)
    return fail("a loop lacks arguments");
  passed = (Any *)calloc((size_t)left + 2, sizeof(Any));
  results = (Any *)calloc((size_t)states + (size_t)stacked + 1, sizeof(Any));
  rows = (Rows *)calloc((size_t)stacked + 1, sizeof(Rows));
  if (!passed || !results || !rows) {
    free(passed), free(results), free(rows);
    return fail("out of memory");
  }
  passed[0] = arguments[0], passed[1] = arguments[1];
  for (i = 0; i < left; ++i) passed[2 + i] = again(arguments[first + i]);
  for (i = 0; i < stacked; ++i) {
    rows[i].shape = again(arguments[5 + 2 * i]), rows[i].dtype = arguments[6 + 2 * i];
    rows[i].dtype.type = DTYPE;
  }
  failed = is_true(passed[2 + fixed], &truth);
  while (!failed && truth) {
    failed = iterate(passed, left + 2, fixed, states, rows, stacked, number++) ||
             is_true(passed[2 + fixed], &truth);
  }
  for (i = 0; !failed && i < states; ++i) results[i] = again(passed[3 + fixed + i]);
  for (i = 0; !failed && i < stacked; ++i) {
    if (!rows[i].capacity) failed = reserve(passed[0], &rows[i], 1);
    if (!failed) failed = rows_at(&rows[i], 0, number, 0, &results[states + i]);
  }
  if (!failed) failed = call("vm.builtin.make_tuple", results, states + stacked, result);
  for (i = 0; i < left; ++i) drop(&passed[2 + i]);
  for (i = 0; i < states + stacked; ++i) drop(&results[i]);
  for (i = 0; i < stacked; ++i) drop(&rows[i].storage), drop(&rows[i].shape);
  free(passed), free(results), free(rows);
  return failed ? -1 : 0;
}
#ifdef __cplusplus
}
#endif
"""
