"""Makes `import chainer` (7.8.1) work on Python 3.11-3.13, NumPy 2.0-2.5 and CuPy 13-14.

`install()` checks the versions and adds an import hook; Chainer itself is imported whenever
somebody asks for it. Each patch stands for one module of Chainer and is a context manager around
the execution of that module: before its `yield` it lends what the module imports and is gone from
today's libraries, after it it mends functions. Nothing stays behind in `numpy` or `sys.modules`,
and what a patch would lend or mend is left alone where the real thing is there.

A child process has the hook as soon as it imports this package: a script that starts processes by
spawn or forkserver imports it at its top.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import sys
import types
import warnings

SUPPORTED = "Python 3.11-3.13, NumPy 2.0-2.5, Chainer 7.8.1 and at most one CuPy, 13 or 14"

# The names under which CuPy can be had for Python 3.11 and later; all install the same module.
CUPY_DISTRIBUTIONS = (
    "cupy",
    "cupy-cuda102",
    "cupy-cuda110",
    "cupy-cuda111",
    "cupy-cuda11x",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "cupy-rocm-4-3",
    "cupy-rocm-5-0",
    "cupy-rocm-7-0",
)

# What CuPy 13 loads of CUDA 12, by the folder that pip's package nvidia-<folder>-cu12 puts it in.
CUDA12_LIBRARIES = {
    "cublas": "libcublas.so.12",
    "cuda_nvrtc": "libnvrtc.so.12",
    "cudnn": "libcudnn.so.8",
    "cufft": "libcufft.so.11",
    "curand": "libcurand.so.10",
    "cusolver": "libcusolver.so.11",
    "cusparse": "libcusparse.so.12",
}


class UnsupportedVersions(ImportError):
    """Chainer 7.8.1 cannot run on the versions installed; one line says what to do."""


def install() -> None:
    """Makes `import chainer` work from now on; a second call does nothing.

    Raises:
        UnsupportedVersions: Python, NumPy, Chainer or CuPy is not of a version that works.
    """
    if any(isinstance(finder, _PatchingFinder) for finder in sys.meta_path):
        return
    check_versions()
    _forget_failed_import()
    sys.meta_path.insert(0, _PatchingFinder())
    for name, patch in PATCHES.items():
        if name in sys.modules:  # imported before us: only the mending is left to do
            with patch(sys.modules[name]):
                pass


def check_versions() -> None:
    """Checks the versions installed, without importing anything.

    Raises:
        UnsupportedVersions: one of them is not supported.
    """
    python = sys.version_info[:3]
    numpy, chainer = _installed_version("numpy"), _installed_version("chainer")
    cupys = {name: _installed_version(name) for name in CUPY_DISTRIBUTIONS}
    cupys = {name: version for name, version in cupys.items() if version}
    if not (3, 11) <= python[:2] <= (3, 13):
        remedy = "make a virtual environment with Python 3.11, 3.12 or 3.13"
    elif not (2, 0) <= _major_minor(numpy) <= (2, 5) or chainer != "7.8.1":
        remedy = "run `pip install -r requirements.txt` in the project's folder"
    elif len(cupys) > 1 or any(_major_minor(v)[0] not in (13, 14) for v in cupys.values()):
        remedy = (
            f"run `pip uninstall {' '.join(cupys)}`, then "
            "`pip install -r requirements-cuda12.txt` or `-r requirements-cuda13.txt`"
        )
    else:
        return
    versions = {"Python": ".".join(map(str, python)), "NumPy": numpy, "Chainer": chainer, **cupys}
    found = [f"{name} {version}" if version else f"no {name}" for name, version in versions.items()]
    raise UnsupportedVersions(f"found {', '.join(found)}, but needed is {SUPPORTED}: {remedy}")


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _major_minor(version: str | None) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _forget_failed_import() -> None:
    """Drops the modules of an `import chainer` that failed: they refer to a package that is dead.

    So `import chainer`, an error, `import mnist_bn`, `import chainer` works in one session.
    """
    if "chainer" not in sys.modules:
        for name in [name for name in sys.modules if name.startswith("chainer.")]:
            del sys.modules[name]


# --- The import hook ---------------------------------------------------------------------------


class _PatchingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules named in `PATCHES`, where Python finds them, and has them patched."""

    def find_spec(self, name, path=None, target=None):
        if name not in PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _execute_within(spec.loader, PATCHES[name])
        return spec


def _execute_within(loader, patch) -> None:
    """Has `loader` execute its module within `patch(module)`.

    The loader belongs to this one module and is the ordinary one again as soon as the module runs,
    so that pickle, inspect, importlib.resources and reload see nothing unusual.
    """
    execute = loader.exec_module

    def exec_module(module):
        del loader.exec_module
        with patch(module):
            execute(module)

    loader.exec_module = exec_module


# --- Tools for patches -------------------------------------------------------------------------


class _Extended:
    """`base`, usually a module, with some `names` added or replaced."""

    def __init__(self, base, **names):
        vars(self).update(names, _base=base)

    def __getattr__(self, name):
        return getattr(vars(self)["_base"], name)


def _with_globals(function, **names):
    """Returns `function` reading `names` where it read globals of its module.

    Narrower than changing the module: elsewhere in it, tests such as `xp is numpy` still hold.
    """
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(copy, function)


@contextlib.contextmanager
def _lent(namespace, names):
    """Adds those of `names` that the mapping `namespace` lacks, for as long as the context."""
    names = {name: value for name, value in names.items() if name not in namespace}
    namespace.update(names)
    try:
        yield
    finally:
        for name in names:
            del namespace[name]


def _imports(name: str) -> bool:
    """Returns whether `name` (pkg_resources or in numpy.distutils) is there and imports.

    Silently: both warn of their own end. Of an import that fails nothing is left behind.
    """
    before = set(sys.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(name)
        except Exception:  # ImportError, or what old code in them stumbles over
            for leftover in sorted(set(sys.modules) - before):
                if leftover.startswith(("pkg_resources", "numpy.distutils")):
                    del sys.modules[leftover]
                    parent, _, child = leftover.rpartition(".")
                    if parent in sys.modules:
                        vars(sys.modules[parent]).pop(child, None)
            return False
    return True


# --- What is gone from setuptools and NumPy ----------------------------------------------------


@contextlib.contextmanager
def _pkg_resources(module):
    """Chainer asks it what is installed. Gone from setuptools 82; Python 3.12+ may have neither."""
    stand_in = {} if _imports("pkg_resources") else {"pkg_resources": _pkg_resources_stand_in()}
    with _lent(sys.modules, stand_in):
        yield


def _pkg_resources_stand_in() -> types.ModuleType:
    """Returns the part of `pkg_resources` that Chainer uses, over importlib.metadata."""

    class ResolutionError(Exception):
        pass

    class DistributionNotFound(ResolutionError):
        pass

    class VersionConflict(ResolutionError):
        pass

    def get_distribution(name):
        version = _installed_version(name)
        if version is None:
            raise DistributionNotFound(name)
        return types.SimpleNamespace(project_name=name, version=version)

    def require(*requirements):
        for requirement in requirements:
            name, specifier = re.match(r"\s*([\w.-]*\w)\s*(.*)", requirement).groups()
            version = get_distribution(name).version
            if specifier:
                from packaging.specifiers import SpecifierSet  # matplotlib brings it

                if not SpecifierSet(specifier).contains(version, prereleases=True):
                    raise VersionConflict(f"{name} {version}", requirement)

    class WorkingSet:
        def require(self, *requirements):
            require(*requirements)

    stand_in = types.ModuleType("pkg_resources")
    vars(stand_in).update(
        ResolutionError=ResolutionError,
        DistributionNotFound=DistributionNotFound,
        VersionConflict=VersionConflict,
        WorkingSet=WorkingSet,
        get_distribution=get_distribution,
        require=require,
    )
    return stand_in


@contextlib.contextmanager
def _numpy_distutils(module):
    """Gone on Python 3.12+; on 3.11 its import fails beside setuptools 74+."""
    if _imports("numpy.distutils.system_info"):
        yield
        return
    distutils = types.ModuleType("numpy.distutils")
    distutils.system_info = types.ModuleType("numpy.distutils.system_info")
    distutils.system_info.get_info = lambda name: {}
    names = {"numpy.distutils": distutils, "numpy.distutils.system_info": distutils.system_info}
    with _lent(sys.modules, names):
        yield
    # On macOS Chainer asks it for NumPy's BLAS after the import, when nothing is lent any more.
    module.numpy = _Extended(sys.modules["numpy"], distutils=distutils)


@contextlib.contextmanager
def _environment_check(module):
    with _pkg_resources(module), _numpy_distutils(module):
        yield


@contextlib.contextmanager
def _cupy_specifier(module):
    """Chainer would warn of the `cupy` built from source, and advise one below 8."""
    yield
    module._optional_dependencies[0]["specifier"] = ">=13,<15"


@contextlib.contextmanager
def _numpy_sctypes(module):
    """`numpy.sctypes`, read by as_strided at its import and in its gradient: gone in NumPy 2.0."""
    import numpy

    sctypes = {
        "int": [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
        "float": [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
    }
    with _lent(vars(numpy), {"sctypes": sctypes}):
        yield
    gradient = module.AsStridedGrad
    gradient.forward = _with_globals(gradient.forward, np=_Extended(numpy, sctypes=sctypes))


@contextlib.contextmanager
def _numpy_float(module):
    """`numpy.float` in resize_images: gone in NumPy 1.24."""
    yield
    module.compute_indices_and_weights = _with_globals(
        module.compute_indices_and_weights, numpy=_Extended(module.numpy, float=float)
    )


@contextlib.contextmanager
def _meshgrid_list(module):
    """`meshgrid(...) + [x]` in Categorical.log_prob: a tuple since NumPy 2.0."""
    yield
    numpy = module.numpy

    def meshgrid(*ranges, **options):
        return list(numpy.meshgrid(*ranges, **options))

    categorical = module.Categorical
    categorical.log_prob = _with_globals(
        categorical.log_prob, numpy=_Extended(numpy, meshgrid=meshgrid)
    )


@contextlib.contextmanager
def _debug_print_device(module):
    """debug_print takes an array without `device` for one on the "CPU"; NumPy 2.0's has "cpu"."""
    yield
    debug_print = module.Variable.debug_print

    @functools.wraps(debug_print)
    def debug_print_of_today(self):
        return debug_print(self).replace("\n- device: cpu\n", "\n- device: CPU\n")

    module.Variable.debug_print = debug_print_of_today


# --- Chainer's own -----------------------------------------------------------------------------


@contextlib.contextmanager
def _deconvolution_cover_all(module):
    """The gradient of a deconvolution's W alone, which gives arrays where shapes are wanted.

    A convolution's input gradient is a deconvolution: so fail its second-order gradients.
    """
    yield
    deconvolution = module.Deconvolution2DFunction
    original = deconvolution._set_cover_all

    def _set_cover_all(self, x, w):
        original(self, getattr(x, "shape", x), getattr(w, "shape", w))

    deconvolution._set_cover_all = _set_cover_all


@contextlib.contextmanager
def _conditions_in_type_checks(module):
    """A condition in a function's check of its inputs, when the check is to say what is wrong.

    Chainer checks twice: by the values and, if that fails, by expressions that it can print, which
    are no conditions. Softmax, log_softmax and softmax_cross_entropy have some (`if`, `a <= b < c`)
    and could not say what is wrong. Within a function's check they are now what they were before.
    """
    yield
    expression = module.Expr
    refuse = expression.__bool__

    def __bool__(self):
        if getattr(module._thread_local, "current_function", None) is None:
            return refuse(self)
        return bool(self.eval())

    expression.__bool__ = __bool__


@contextlib.contextmanager
def _caffe_messages(module):
    """Caffe's messages, in code generated for a protobuf before 4, which today's refuses to run.

    In that code stands the description that today's makes the same messages of.
    """
    try:
        from google.protobuf.internal import builder  # since 3.20
    except ImportError:
        builder = None
    if builder is None:
        yield
        return
    loader = module.__spec__.loader
    loader.get_code = lambda name: compile("", module.__file__, "exec")  # it has just this module
    try:
        yield
    finally:
        del loader.get_code
    from google.protobuf import descriptor_pool

    description = _keyword_bytes(loader.get_source(module.__name__), "serialized_pb")
    # A pool of its own: other packages bring a caffe.proto, too.
    module.DESCRIPTOR = descriptor_pool.DescriptorPool().AddSerializedFile(description)
    builder.BuildMessageAndEnumDescriptors(module.DESCRIPTOR, vars(module))
    builder.BuildTopDescriptorsAndMessages(module.DESCRIPTOR, module.__name__, vars(module))


def _keyword_bytes(source: str, name: str) -> bytes:
    """Returns the bytes `_b('...')` that source code passes as the keyword argument `name`."""
    _, _, text = source.partition(f"{name}=_b(")
    text, _, _ = text.partition("')\n")
    return ast.literal_eval(text + "'").encode("latin1")


# --- CuPy and ChainerMN ------------------------------------------------------------------------


@contextlib.contextmanager
def _cuda(module):
    """CUDA's libraries for CuPy 13, and no advice to reinstall CuPy 14, which knows no cuDNN.

    For CuPy 13 requirements-cuda12.txt says what cuDNN takes.
    """
    if _major_minor(_installed_version("cupy-cuda12x"))[0] == 13:
        _load_cuda12()
    with warnings.catch_warnings():
        # Of CuPy 13; whoever makes errors of warnings would lose cuDNN.
        warnings.filterwarnings("ignore", "cupy.cudnn is deprecated", DeprecationWarning)
        yield
    module.check_cuda_available._already_warned = True


def _load_cuda12() -> None:
    """Loads what pip has installed of CUDA 12; CuPy 14 finds it by itself, 13 once it is loaded."""
    nvidia = importlib.util.find_spec("nvidia")
    for folder in nvidia.submodule_search_locations if nvidia else ():
        for package, library in CUDA12_LIBRARIES.items():
            with contextlib.suppress(OSError):  # not there, or not for this system
                ctypes.CDLL(os.path.join(folder, package, "lib", library), ctypes.RTLD_GLOBAL)


@contextlib.contextmanager
def _dropout_without_cudnn(module):
    """cuDNN draws masks from a state of its own, which no seed reaches and no snapshot has.

    Without it Dropout draws from CuPy's generator.
    """
    yield
    without_cudnn = _Extended(module.chainer, should_use_cudnn=lambda *arguments: False)
    dropout = module.Dropout
    dropout.forward_gpu = _with_globals(dropout.forward_gpu, chainer=without_cudnn)


@contextlib.contextmanager
def _parallel_updater(module):
    """MultiprocessParallelUpdater: two kernels name `float16`, no longer included by CuPy 14."""
    with warnings.catch_warnings():
        # CuPy warns, in ten lines, where NCCL is missing; nothing but this updater asks for it.
        warnings.filterwarnings("ignore", r"\s*nccl library could not be loaded")
        yield
    cuda = module.cuda
    if cuda._cupy_major < 14:  # 0 without CuPy
        return
    elementwise = functools.partial(cuda.elementwise, preamble='#include "cupy/float16.cuh"\n')
    cuda = _Extended(cuda, elementwise=elementwise)
    module._memcpy_gather = _with_globals(module._memcpy_gather, cuda=cuda)
    module._memcpy_scatter = _with_globals(module._memcpy_scatter, cuda=cuda)


@contextlib.contextmanager
def _chainermn_memory(module):
    yield
    _half_in_batched_copy(module)
    _copy_if_needed_in_unpack_params(module)


def _half_in_batched_copy(module) -> None:
    """Two kernels of ChainerMN name `half`: CuPy 14 no longer includes its header."""
    chainer = module.chainer
    if chainer.cuda._cupy_major < 14:
        return

    def raw(code, name):
        return chainer.cuda.raw("#include <cuda_fp16.h>\n" + code, name)

    extended = _Extended(chainer, cuda=_Extended(chainer.cuda, raw=raw))
    for name in ("_cupy_batched_pack_params", "_cupy_batched_unpack_params"):
        setattr(module, name, _with_globals(getattr(module, name), chainer=extended))


def _copy_if_needed_in_unpack_params(module) -> None:
    """`array(copy=False)` meant "copy if needed"; since NumPy 2.0 and CuPy 14 it means "never"."""
    backend = module.chainer.backend

    def get_array_module(*arrays):
        xp = backend.get_array_module(*arrays)
        return _Extended(xp, array=lambda array, copy, dtype: xp.asarray(array, dtype=dtype))

    extended = _Extended(
        module.chainer, backend=_Extended(backend, get_array_module=get_array_module)
    )
    module.unpack_params = _with_globals(module.unpack_params, chainer=extended)


@contextlib.contextmanager
def _int_of_one_element(module):
    """`int()` of a shape-(1,) array: an error since NumPy 2.4, and the other ranks wait on."""
    yield
    iterator = module._MultiNodeIteratorSlave
    iterator.__init__ = _with_globals(iterator.__init__, int=lambda array: int(array.item()))


# --- onnx_chainer ------------------------------------------------------------------------------


@contextlib.contextmanager
def _onnx_mapping(module):
    """`onnx.mapping`, imported all over onnx_chainer and looked up by one module: gone by now."""
    stand_in = _onnx_mapping_stand_in()
    if stand_in is None:
        yield
        return
    with _lent(sys.modules, {"onnx.mapping": stand_in}):
        yield
    context = sys.modules["onnx_chainer.context"]
    context.onnx = _Extended(context.onnx, mapping=stand_in)


def _onnx_mapping_stand_in() -> types.ModuleType | None:
    """Returns what onnx_chainer uses of `onnx.mapping`; None where onnx has it, or is missing."""
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnx.mapping"):
        return None
    import numpy
    from onnx import helper

    floats, integers = ["float32", "float64"], ["int32", "int64", "uint32", "uint64", "bool"]
    others = ["float16", "int8", "int16", "uint8", "uint16", "complex64", "complex128", "object"]
    types_by_name = {
        name: int(helper.np_dtype_to_tensor_dtype(numpy.dtype(name)))
        for name in floats + integers + others
    }
    stand_in = types.ModuleType("onnx.mapping")
    stand_in.NP_TYPE_TO_TENSOR_TYPE = {numpy.dtype(k): v for k, v in types_by_name.items()}
    # Constants of the others are written as raw bytes.
    stand_in.STORAGE_TENSOR_TYPE_TO_FIELD = {
        types_by_name[name]: helper.tensor_dtype_to_field(types_by_name[name])
        for name in floats + integers
    }
    return stand_in


@contextlib.contextmanager
def _onnx_ir_version(module):
    """export() stamps onnx.IR_VERSION, the newest of which onnxruntime refuses.

    Opsets 7 to 11, all that it writes, need no more than IR version 6.
    """
    yield
    if module._available:
        module.onnx = _Extended(module.onnx, IR_VERSION=min(module.onnx.IR_VERSION, 6))


PATCHES = {
    "chainer._version": _cupy_specifier,
    "chainer._environment_check": _environment_check,
    "chainer.backends.cuda": _cuda,
    "chainer.distributions.categorical": _meshgrid_list,
    "chainer.functions.array.as_strided": _numpy_sctypes,
    "chainer.functions.array.resize_images": _numpy_float,
    "chainer.functions.connection.deconvolution_2d": _deconvolution_cover_all,
    "chainer.functions.noise.dropout": _dropout_without_cudnn,
    "chainer.links.caffe.protobuf3.caffe_pb2": _caffe_messages,
    "chainer.testing.doctest_helper": _pkg_resources,
    "chainer.testing.helper": _pkg_resources,
    "chainer.training.updaters.multiprocess_parallel_updater": _parallel_updater,
    "chainer.utils.type_check": _conditions_in_type_checks,
    "chainer.variable": _debug_print_device,
    "chainermn.communicators._memory_utility": _chainermn_memory,
    "chainermn.iterators.multi_node_iterator": _int_of_one_element,
    "onnx_chainer": _onnx_mapping,
    "onnx_chainer.export": _onnx_ir_version,
}
