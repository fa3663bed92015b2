#include "lib/pickle/globals.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "lib/base/text.h"
#include "lib/pickle/python2_names.h"

namespace uckpt::pickle {

namespace {

struct Row {
  std::string_view full;
  Known known;
  GlobalClass trust = GlobalClass::kKnown;
};

constexpr Row kRows[] = {
    {"torch._utils._rebuild_tensor", Known::kRebuildTensor},
    {"torch._utils._rebuild_tensor_v2", Known::kRebuildTensorV2},
    {"torch._utils._rebuild_tensor_v3", Known::kRebuildTensorV3},
    {"torch._utils._rebuild_parameter", Known::kRebuildParameter},
    {"torch._utils._rebuild_parameter_with_state", Known::kRebuildParameterWithState},
    {"torch._utils._rebuild_meta_tensor_no_storage", Known::kRebuildMeta},
    {"torch._tensor._rebuild_from_type_v2", Known::kRebuildFromType},
    {"torch._utils._rebuild_sparse_tensor", Known::kRebuildSparse, GlobalClass::kUnknown},
    {"torch._utils._rebuild_sparse_csr_tensor", Known::kRebuildSparse, GlobalClass::kUnknown},
    {"torch._utils._rebuild_qtensor", Known::kRebuildQuantised, GlobalClass::kUnknown},
    {"torch._utils._rebuild_wrapper_subclass", Known::kRebuildWrapper, GlobalClass::kUnknown},
    {"torch._utils._rebuild_nested_tensor", Known::kRebuildNested, GlobalClass::kUnknown},
    {"torch.distributed.tensor.DTensor", Known::kDistributedTensor, GlobalClass::kUnknown},
    {"torch.distributed._tensor.api.DTensor", Known::kDistributedTensor, GlobalClass::kUnknown},
    {"torch.distributed.tensor._api.DTensor", Known::kDistributedTensor, GlobalClass::kUnknown},
    {"torch.storage.UntypedStorage", Known::kUntypedStorage},
    {"torch.UntypedStorage", Known::kUntypedStorage},
    {"torch.cuda.UntypedStorage", Known::kUntypedStorage},
    {"torch.storage.TypedStorage", Known::kTypedStorage},
    {"torch.storage._UntypedStorage", Known::kUntypedStorage},
    {"torch.storage._TypedStorage", Known::kTypedStorage},
    {"torch.Tensor", Known::kTensorClass},
    {"torch._tensor.Tensor", Known::kTensorClass},
    {"torch.nn.parameter.Parameter", Known::kTensorClass},
    {"torch.nn.parameter.Buffer", Known::kTensorClass},
    {"torch.Size", Known::kSize},
    {"torch.device", Known::kDevice},
    {"torch.serialization._get_layout", Known::kGetLayout},
    {"collections.OrderedDict", Known::kOrderedDict},
    {"collections.defaultdict", Known::kDefaultDict},
    {"collections.Counter", Known::kCounter},
    {"builtins.dict", Known::kDict},
    {"builtins.list", Known::kList},
    {"builtins.tuple", Known::kTuple},
    {"builtins.set", Known::kSet},
    {"builtins.frozenset", Known::kFrozenSet},
    {"builtins.bytearray", Known::kByteArray},
    {"builtins.bytes", Known::kBytesClass},
    {"builtins.complex", Known::kComplex},
    {"builtins.slice", Known::kSlice},
    {"builtins.range", Known::kRange},
    {"builtins.object", Known::kObjectClass},
    {"_codecs.encode", Known::kEncode},
    {"copyreg._reconstructor", Known::kReconstructor},
    {"copyreg.__newobj__", Known::kNewObjFunction},
    {"copyreg.__newobj_ex__", Known::kNewObjExFunction},
    {"argparse.Namespace", Known::kNamespace},
    {"pathlib.PosixPath", Known::kPath},
    {"pathlib.PurePosixPath", Known::kPath},
    {"pathlib.WindowsPath", Known::kPath},
    {"pathlib.PureWindowsPath", Known::kPath},
    {"pathlib._local.PosixPath", Known::kPath},
    {"pathlib._local.PurePosixPath", Known::kPath},
    {"pathlib._local.WindowsPath", Known::kPath},
    {"io.BytesIO", Known::kBytesIO},
    {"_io.BytesIO", Known::kBytesIO},
    {"numpy.dtype", Known::kNumpyDtype},
    {"numpy.ndarray", Known::kNumpyArrayClass},
    {"numpy.core.multiarray._reconstruct", Known::kNumpyReconstruct},
    {"numpy._core.multiarray._reconstruct", Known::kNumpyReconstruct},
    {"numpy.core.multiarray.scalar", Known::kNumpyScalar},
    {"numpy._core.multiarray.scalar", Known::kNumpyScalar},
    {"numpy.core.numeric._frombuffer", Known::kNumpyFromBuffer},
    {"numpy._core.numeric._frombuffer", Known::kNumpyFromBuffer},
    {"torch.distributed.checkpoint.metadata.Metadata", Known::kPlainClass},
    {"torch.distributed.checkpoint.metadata.TensorStorageMetadata", Known::kPlainClass},
    {"torch.distributed.checkpoint.metadata.BytesStorageMetadata", Known::kPlainClass},
    {"torch.distributed.checkpoint.metadata.ChunkStorageMetadata", Known::kPlainClass},
    {"torch.distributed.checkpoint.metadata.TensorProperties", Known::kPlainClass},
    {"torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING", Known::kPlainClass},
    {"torch.distributed.checkpoint.metadata.MetadataIndex", Known::kPlainClass},
    {"torch.distributed.checkpoint.metadata.StorageMeta", Known::kPlainClass},
    {"torch.distributed.checkpoint.filesystem._StorageInfo", Known::kPlainClass},
    {"torch.distributed.checkpoint.planner.SavePlan", Known::kPlainClass},
    {"torch.distributed.checkpoint.planner.WriteItem", Known::kPlainClass},
    {"torch.distributed.checkpoint.planner.WriteItemType", Known::kPlainClass},
    {"torch.distributed.checkpoint.planner.TensorWriteData", Known::kPlainClass},
    {"megatron.core.dist_checkpointing.strategies.torch.MCoreMetadata", Known::kPlainClass},
    {"megatron.core.dist_checkpointing.strategies.torch.MCoreSavePlan", Known::kPlainClass},
    {"megatron.core.transformer.enums.AttnBackend", Known::kPlainClass},
    {"deepspeed.runtime.zero.config.ZeroStageEnum", Known::kPlainClass},
    {"deepspeed.runtime.fp16.loss_scaler.LossScaler", Known::kPlainClass},
    {"deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler", Known::kPlainClass},
    {"deepspeed.utils.tensor_fragment.fragment_address", Known::kPlainClass},
    {"deepspeed.checkpoint.universal_checkpoint.SubparamShape", Known::kPlainClass},
};

// For the report only: safety never rests on this list, since nothing of any list is ever run.
constexpr std::string_view kDangerousModules[] = {"os",
                                                  "posix",
                                                  "nt",
                                                  "posixpath",
                                                  "ntpath",
                                                  "subprocess",
                                                  "_posixsubprocess",
                                                  "sys",
                                                  "pty",
                                                  "tty",
                                                  "shutil",
                                                  "socket",
                                                  "_socket",
                                                  "importlib",
                                                  "imp",
                                                  "runpy",
                                                  "ctypes",
                                                  "_ctypes",
                                                  "cffi",
                                                  "code",
                                                  "codeop",
                                                  "pdb",
                                                  "bdb",
                                                  "timeit",
                                                  "trace",
                                                  "profile",
                                                  "cProfile",
                                                  "commands",
                                                  "popen2",
                                                  "webbrowser",
                                                  "marshal",
                                                  "pickle",
                                                  "_pickle",
                                                  "cPickle",
                                                  "shelve",
                                                  "zipimport",
                                                  "pkgutil",
                                                  "pip",
                                                  "pydoc",
                                                  "multiprocessing",
                                                  "asyncio",
                                                  "http.client",
                                                  "urllib.request",
                                                  "urllib2",
                                                  "httplib",
                                                  "ftplib",
                                                  "smtplib",
                                                  "telnetlib",
                                                  "requests",
                                                  "aiohttp",
                                                  "torch.hub",
                                                  "torch.utils.cpp_extension",
                                                  "torch.utils.benchmark",
                                                  "numpy.testing",
                                                  "numpy.distutils",
                                                  "numpy.f2py"};

constexpr std::string_view kDangerousNames[] = {"builtins.eval",
                                                "builtins.exec",
                                                "builtins.execfile",
                                                "builtins.compile",
                                                "builtins.getattr",
                                                "builtins.setattr",
                                                "builtins.delattr",
                                                "builtins.__import__",
                                                "builtins.open",
                                                "builtins.file",
                                                "builtins.input",
                                                "builtins.apply",
                                                "builtins.breakpoint",
                                                "builtins.globals",
                                                "builtins.locals",
                                                "builtins.vars",
                                                "builtins.exit",
                                                "builtins.quit",
                                                "operator.attrgetter",
                                                "operator.methodcaller",
                                                "_operator.attrgetter",
                                                "_operator.methodcaller",
                                                "types.CodeType",
                                                "types.FunctionType",
                                                "functools.reduce",
                                                "io.open",
                                                "_io.open",
                                                "io.FileIO",
                                                "_io.FileIO",
                                                "codecs.open",
                                                "torch.load",
                                                "torch.serialization.load",
                                                "numpy.load",
                                                "numpy.memmap",
                                                "numpy.fromfile",
                                                "joblib.load"};

// Storage classes are spelt torch.FloatStorage, torch.cuda.FloatStorage.
struct StorageName {
  std::string_view name;
  std::optional<DType> dtype;  // nothing: quantised, refused where it is used
};
constexpr StorageName kStorages[] = {{"DoubleStorage", DType::kF64},
                                     {"FloatStorage", DType::kF32},
                                     {"HalfStorage", DType::kF16},
                                     {"BFloat16Storage", DType::kBF16},
                                     {"LongStorage", DType::kI64},
                                     {"IntStorage", DType::kI32},
                                     {"ShortStorage", DType::kI16},
                                     {"CharStorage", DType::kI8},
                                     {"ByteStorage", DType::kU8},
                                     {"BoolStorage", DType::kBool},
                                     {"ComplexFloatStorage", DType::kC64},
                                     {"ComplexDoubleStorage", DType::kC128},
                                     {"QInt8Storage", {}},
                                     {"QUInt8Storage", {}},
                                     {"QInt32Storage", {}},
                                     {"QUInt4x2Storage", {}},
                                     {"QUInt2x4Storage", {}}};

// Types of torch's whose elements we do not name: refused where they are used.
constexpr std::string_view kOtherDtypes[] = {
    "qint8", "quint8", "qint32", "quint4x2", "quint2x4", "bits1x8", "bits2x4", "bits4x2",
    "bits8", "bits16", "int1",   "int2",     "int3",     "int4",    "int5",    "int6",
    "int7",  "uint1",  "uint2",  "uint3",    "uint4",    "uint5",   "uint6",   "uint7"};

bool module_is_or_below(std::string_view module, std::string_view top) {
  return module.starts_with(top) && (module.size() == top.size() || module[top.size()] == '.');
}

// As Python's style guide has the names of classes: no module is called so, and few functions.
bool is_class_name(std::string_view text) {
  const size_t at = text.find_first_not_of('_');
  if (at > 1 || text[at] < 'A' || text[at] > 'Z') return false;
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

bool is_dangerous(std::string_view module, std::string_view name, int protocol) {
  const bool is_dotted = name.find('.') != std::string_view::npos;
  if (is_dotted && (protocol < 4 || !is_nested_class(module, name))) return true;
  for (std::string_view top : kDangerousModules)
    if (module_is_or_below(module, top)) return true;
  const std::string full = cat(module, '.', name);
  for (std::string_view listed : kDangerousNames)
    if (is_dotted ? full.starts_with(cat(listed, '.')) : full == listed) return true;
  return false;
}

const std::unordered_map<std::string_view, Row>& known_rows() {
  static const auto rows = [] {
    std::unordered_map<std::string_view, Row> map;
    for (const Row& row : kRows) map.emplace(row.full, row);
    return map;
  }();
  return rows;
}

void classify_torch_type(Global& global) {
  if (global.module() != "torch" && global.module() != "torch.cuda") return;
  for (const StorageName& storage : kStorages) {
    if (storage.name != global.name()) continue;
    global.known = Known::kStorage;
    global.trust = GlobalClass::kKnown;
    global.dtype = storage.dtype;
    return;
  }
  if (global.module() != "torch") return;
  global.dtype = dtype_from_torch(global.name());
  bool is_dtype = global.dtype.has_value();
  for (std::string_view name : kOtherDtypes) is_dtype |= name == global.name();
  if (!is_dtype) return;
  global.known = Known::kDtype;
  global.trust = GlobalClass::kKnown;
}

}  // namespace

bool is_nested_class(std::string_view module, std::string_view name) {
  if (module == "zoneinfo" && name == "ZoneInfo._unpickle") return true;
  size_t parts = 0;
  for (size_t dot = 0; dot != std::string_view::npos; ++parts) {
    dot = name.find('.');
    if (!is_class_name(name.substr(0, dot))) return false;
    if (dot != std::string_view::npos) name.remove_prefix(dot + 1);
  }
  return parts > 1 && parts <= kMostNested;
}

Global make_global(std::string_view module, std::string_view name, int protocol) {
  const PlaceOfName mapped = from_python2({module, name});
  const PlaceOfName place = protocol < 3 ? mapped : PlaceOfName{module, name};
  Global global{
      cat(place.module, '.', place.name), place.module.size(), GlobalClass::kUnknown, Known::kNone, {}};
  if (is_dangerous(place.module, place.name, protocol) ||
      is_dangerous(mapped.module, mapped.name, protocol)) {
    global.trust = GlobalClass::kDangerous;
    return global;
  }
  if (place.name.find('.') != std::string_view::npos) return global;
  if (const auto row = known_rows().find(global.full); row != known_rows().end()) {
    global.known = row->second.known;
    global.trust = row->second.trust;
    return global;
  }
  classify_torch_type(global);
  return global;
}

std::string_view storage_class(DType dtype) {
  for (const StorageName& storage : kStorages)
    if (storage.dtype == dtype) return storage.name;
  return {};
}

}  // namespace uckpt::pickle
