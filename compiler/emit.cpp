// SPDX-License-Identifier: Apache-2.0
#include "emit.h"

#include <elf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>

#include "elf_object.h"

namespace hrnn {
namespace {

namespace fs = std::filesystem;

const char *architecture_of(const TargetRow &target) { return target.elf_machine == EM_AARCH64 ? "arm-64" : "x86-64"; }
std::string backend_of(const TargetRow &target) { return target.machine.gpu ? target.name : ""; }

// Objects are written to a folder of their own and archived from there.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path &parent) {
    std::string pattern = (parent / ".hrnn-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make a folder in " + parent.string());
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  fs::path operator/(const std::string &name) const { return path_ / name; }

 private:
  fs::path path_;
};

struct Kernel {
  KernelSpec spec;
  const TargetRow *target;
  std::string symbol;
};

struct Group {
  EmittedLibrary library;
  int elf_machine;
  std::vector<Kernel> kernels;
};

std::vector<Group> group_kernels(const EmitRequest &request) {
  std::vector<Group> groups;
  for (const TargetRow *target : request.targets) {
    Group *group = nullptr;
    for (Group &other : groups)
      if (other.library.architecture == architecture_of(*target) && other.library.backend == backend_of(*target))
        group = &other;
    if (group == nullptr) {
      groups.emplace_back();
      group = &groups.back();
      group->elf_machine = target->elf_machine;
      EmittedLibrary &library = group->library;
      library.architecture = architecture_of(*target);
      library.backend = backend_of(*target);
      const std::string suffix = library.backend.empty() ? "" : "_" + library.backend;
      library.path = (fs::path(request.directory) / library.architecture / ("lib" + request.name + suffix + ".a")).string();
      library.table = request.name + suffix + "_kernels";
      if (request.model != nullptr && library.backend.empty()) library.model = request.name + "_model";
    }
    for (const KernelFamily &family : request.families)
      for (const KernelSpec &spec : expand(family, *target))
        group->kernels.push_back({spec, target, kernel_symbol(request.name, spec, *target)});
  }
  return groups;
}

// Bytes of the sections that execute: what the code costs the program that embeds it.
uint64_t code_bytes(const std::string &object) {
  std::ifstream file(object, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  if (bytes.size() < sizeof(Elf64_Ehdr)) return 0;
  const auto *header = reinterpret_cast<const Elf64_Ehdr *>(bytes.data());
  uint64_t total = 0;
  for (int i = 0; i < header->e_shnum; i++) {
    const auto *section = reinterpret_cast<const Elf64_Shdr *>(bytes.data() + header->e_shoff) + i;
    if ((section->sh_flags & SHF_ALLOC) && section->sh_type == SHT_PROGBITS) total += section->sh_size;
  }
  return total;
}

ElfDataObject::Place add_target(ElfDataObject *object, const TargetRow &row) {
  hrnn_target target = {};
  target.features = row.features;
  target.rank = row.rank;
  target.use = row.use;
  auto at = object->add_relocated(&target, sizeof target, alignof(hrnn_target));
  object->point_to(at, offsetof(hrnn_target, name), object->add_string(row.name));
  return at;
}

ElfDataObject::Place add_kernel_table(ElfDataObject *object, const Group &group) {
  std::vector<hrnn_kernel> rows;
  std::map<const TargetRow *, ElfDataObject::Place> targets;
  for (const Kernel &kernel : group.kernels)
    if (targets.count(kernel.target) == 0) targets[kernel.target] = add_target(object, *kernel.target);
  for (const Kernel &kernel : group.kernels) rows.push_back(kernel_row(kernel.spec));
  auto rows_at = object->add_relocated(rows.data(), rows.size() * sizeof(hrnn_kernel), alignof(hrnn_kernel));
  for (size_t i = 0; i < rows.size(); i++) {
    const Kernel &kernel = group.kernels[i];
    const size_t base = i * sizeof(hrnn_kernel);
    object->point_to(rows_at, base + offsetof(hrnn_kernel, symbol), object->add_string(kernel.symbol));
    object->point_to(rows_at, base + offsetof(hrnn_kernel, cell), object->add_string(kernel.spec.cell));
    object->point_to(rows_at, base + offsetof(hrnn_kernel, target), targets[kernel.target]);
    object->point_to(rows_at, base + offsetof(hrnn_kernel, entry), kernel.symbol + "_argv");
  }
  hrnn_kernel_table table = {};
  table.abi_version = HRNN_ABI_VERSION;
  table.count = static_cast<uint32_t>(rows.size());
  auto at = object->add_relocated(&table, sizeof table, alignof(hrnn_kernel_table));
  object->point_to(at, offsetof(hrnn_kernel_table, kernels), rows_at);
  if (!group.library.backend.empty())
    object->point_to(at, offsetof(hrnn_kernel_table, device), "hrnn_" + group.library.backend + "_device");
  object->define(group.library.table, at, sizeof table);
  return at;
}

void add_model(ElfDataObject *object, const Group &group, const std::string &name, const ModelBlob &blob,
               const ElfDataObject::Place &table) {
  hrnn_model model = {};
  model.abi_version = HRNN_ABI_VERSION;
  model.program_bytes = blob.program_bytes;
  model.weights_bytes = blob.weights_bytes;
  auto weights = object->add_bytes(blob.weights, blob.weights_bytes, 64);
  auto program = object->add_bytes(blob.program, blob.program_bytes, 16);
  auto at = object->add_relocated(&model, sizeof model, alignof(hrnn_model));
  object->point_to(at, offsetof(hrnn_model, name), object->add_string(name));
  object->point_to(at, offsetof(hrnn_model, program), program);
  object->point_to(at, offsetof(hrnn_model, weights), weights);
  object->point_to(at, offsetof(hrnn_model, kernels), table);
  object->define(group.library.model, at, sizeof model);
}

void check_name(const std::string &name) {
  bool ok = !name.empty() && !(name[0] >= '0' && name[0] <= '9');
  for (char c : name) ok &= (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  if (!ok) throw std::runtime_error("'" + name + "' cannot name a library: it must be a C identifier (letters, digits, _)");
}

}  // namespace

std::vector<EmittedLibrary> emit(const EmitRequest &request) {
  check_name(request.name);
  std::vector<Group> groups = group_kernels(request);
  size_t total = 0, done = 0;
  for (const Group &group : groups) total += group.kernels.size();

  std::vector<EmittedLibrary> libraries;
  for (Group &group : groups) {
    if (group.kernels.empty())
      throw std::runtime_error("target " + group.library.backend + " has no kernels of the types asked for");
    const fs::path folder = fs::path(group.library.path).parent_path();
    fs::create_directories(folder);
    TemporaryFolder objects(folder);
    std::vector<std::string> files;
    for (const Kernel &kernel : group.kernels) {
      if (request.progress) request.progress(done++, total, kernel.symbol);
      const std::string file = (objects / (kernel.symbol + ".o")).string();
      std::map<Halide::OutputFileType, std::string> outputs = {{Halide::OutputFileType::object, file}};
      if (request.keep_ptx && backend_of(*kernel.target) == "cuda")
        outputs[Halide::OutputFileType::device_code] = (folder / (kernel.symbol + ".ptx")).string();
      build_kernel(kernel.spec, *kernel.target, kernel.symbol).compile(outputs);
      files.push_back(file);
      group.library.objects.push_back({kernel.target->name, kernel.symbol, code_bytes(file)});
    }
    ElfDataObject data(group.elf_machine);
    auto table = add_kernel_table(&data, group);
    if (!group.library.model.empty()) add_model(&data, group, request.name, *request.model, table);
    files.push_back((objects / (request.name + "_data.o")).string());
    data.write(files.back());
    Halide::create_static_library(files, Halide::Target(group.kernels[0].target->halide), group.library.path);
    libraries.push_back(group.library);
  }
  return libraries;
}

void emit_device_runtime(const std::string &backend, const std::string &object_path) {
  const TargetRow *target = targets_by_name({backend})[0];
  Halide::compile_standalone_runtime(object_path, Halide::Target(target->halide));
}

}  // namespace hrnn
