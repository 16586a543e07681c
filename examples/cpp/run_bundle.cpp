// Run a bundle without Python: load TVM's runtime that the bundle brings, the compiled network and its weights, and
// answer one input. What Python's `netcut_fx.runtime` does besides (checking hashes and the CPU, preprocessing images)
// is left to the caller.
//
//   run_bundle BUNDLE THREADS INPUT.f32 N C H W   ->  logits, one per line
//
// INPUT.f32 holds N*C*H*W float32 numbers, preprocessed. How to build it stands in README.md beside this file.
#include <dlfcn.h>
#include <sched.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

// Compiled code uses aligned vector loads: memory that starts elsewhere ends the process.
struct Aligned {
  void AllocData(DLTensor* tensor) {
    size_t bytes = (ffi::GetDataSize(*tensor) + 63) / 64 * 64;
    tensor->data = std::aligned_alloc(64, bytes ? bytes : 64);
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

static ffi::Tensor make_tensor(const std::vector<int64_t>& shape, const char* data, size_t bytes) {
  ffi::Tensor tensor =
      ffi::Tensor::FromNDAlloc(Aligned(), ffi::Shape(shape.begin(), shape.end()), DLDataType{kDLFloat, 32, 1},
                               DLDevice{kDLCPU, 0});
  if (ffi::GetDataSize(tensor) != bytes) throw std::runtime_error("data does not fit its shape");
  std::memcpy(tensor.data_ptr(), data, bytes);
  return tensor;
}

static std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

static std::vector<int64_t> numbers_after(const std::string& text, const std::string& key) {
  std::vector<int64_t> found;
  size_t at = text.find('[', text.find("\"" + key + "\"")) + 1;
  while (text[at] != ']') {
    char* end = nullptr;
    found.push_back(std::strtoll(text.c_str() + at, &end, 10));
    at = static_cast<size_t>(end - text.c_str());
    while (text[at] == ',' || text[at] == ' ') ++at;
  }
  return found;
}

// safetensors: the length of a JSON header in 8 bytes, the header, the arrays. A bundle names them p0, p1, ... in the
// order of the library's arguments, and all are float32.
static std::map<int, ffi::Tensor> read_weights(const std::string& path) {
  std::string file = read_file(path);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  std::string header = file.substr(8, length);
  const char* data = file.data() + 8 + length;
  std::map<int, ffi::Tensor> weights;
  for (size_t at = header.find("\"p"); at != std::string::npos; at = header.find("\"p", at)) {
    int number = std::atoi(header.c_str() + at + 2);
    size_t end = header.find('}', at);
    std::string entry = header.substr(at, end - at);
    if (entry.find("\"F32\"") == std::string::npos) throw std::runtime_error("a weight is not float32: " + entry);
    std::vector<int64_t> range = numbers_after(entry, "data_offsets");
    weights.emplace(number, make_tensor(numbers_after(entry, "shape"), data + range[0], range[1] - range[0]));
    at = end;
  }
  return weights;
}

// TVM keeps one pool per calling thread; naming so many cores before its first use sizes it (mode -3: cores shared).
static void set_threads(int threads) {
  cpu_set_t allowed;
  sched_getaffinity(0, sizeof(allowed), &allowed);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed)) cores.push_back(core);
  }
  ffi::Array<ffi::String> chosen;
  for (int i = 0; i < threads; ++i) chosen.push_back(std::to_string(cores[i % cores.size()]));
  ffi::Function::GetGlobalRequired("runtime.config_threadpool")(-3, threads, chosen);
}

static int run(char** argv) {
  std::string bundle = argv[1];
  if (dlopen((bundle + "/libtvm_runtime.so").c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw std::runtime_error(dlerror());
  }
  set_threads(std::atoi(argv[2]));
  ffi::Module library = ffi::Module::LoadFromFile(bundle + "/lib.so");
  ffi::Module machine = library->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  const int pooled_allocator = 2;
  machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, pooled_allocator);
  ffi::Function network = machine->GetFunction("main").value();

  std::map<int, ffi::Tensor> weights = read_weights(bundle + "/params.safetensors");
  std::vector<int64_t> shape = {1, std::atoll(argv[5]), std::atoll(argv[6]), std::atoll(argv[7])};
  std::string input = read_file(argv[3]);
  size_t bytes = static_cast<size_t>(shape[1] * shape[2] * shape[3]) * 4;
  size_t images = static_cast<size_t>(std::atoll(argv[4]));
  if (input.size() != images * bytes) throw std::runtime_error("the input has another size than N*C*H*W float32");
  for (size_t image = 0; image < images; ++image) {
    ffi::Tensor given = make_tensor(shape, input.data() + image * bytes, bytes);
    std::vector<ffi::AnyView> arguments = {given};
    for (const auto& weight : weights) arguments.push_back(weight.second);
    ffi::Any answer;
    network.CallPacked(arguments.data(), static_cast<int>(arguments.size()), &answer);
    // A network answers a tensor, or a tuple with one in it.
    auto tuple = answer.as<ffi::Array<ffi::Any>>();
    ffi::Tensor logits = tuple.has_value() ? (*tuple)[0].cast<ffi::Tensor>() : answer.cast<ffi::Tensor>();
    const float* values = static_cast<const float*>(logits.data_ptr());
    for (int64_t i = 0; i < logits.size(1); ++i) std::printf("%.9g\n", values[i]);
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 8) {
    std::fprintf(stderr, "usage: run_bundle BUNDLE THREADS INPUT.f32 N C H W\n");
    return 2;
  }
  try {
    return run(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
