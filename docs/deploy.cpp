// Runs a library that tvmext compiled from a model with float32 x[batch, 4] -> float32 y[batch, 3].
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>

using tvm::ffi::Module;
using tvm::ffi::Tensor;

// Compiled code takes every input to start at a multiple of 64 bytes.
struct AlignedMemory {
  void AllocData(DLTensor* tensor) {
    size_t bytes = tvm::ffi::GetDataSize(*tensor);
    tensor->data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

int main(int argc, char** argv) {
  Module library = Module::LoadFromFile(argc > 1 ? argv[1] : "model.so");

  // A virtual machine on the CPU, with pooled memory.
  Module vm = library->GetFunction("vm_load_executable").value()().cast<Module>();
  constexpr int kPooledMemory = 2;
  vm->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledMemory);
  tvm::ffi::Function run = vm->GetFunction("main").value();

  // What the library says about itself, as JSON.
  std::cout << vm->GetFunction("tvmext_metadata").value()().cast<tvm::ffi::String>() << '\n';

  const int64_t shape[] = {2, 4};
  Tensor x = Tensor::FromNDAlloc(AlignedMemory(), tvm::ffi::ShapeView(shape, 2),
                                 DLDataType{kDLFloat, 32, 1}, DLDevice{kDLCPU, 0});
  std::fill_n(static_cast<float*>(x.data_ptr()), x.numel(), 1.0f);

  // One output is a tensor; several are an Array<Tensor>.
  Tensor y = run(x).cast<Tensor>();
  for (int64_t i = 0; i < y.numel(); ++i) std::cout << static_cast<float*>(y.data_ptr())[i] << '\n';
}
