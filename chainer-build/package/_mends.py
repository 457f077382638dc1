"""What today's libraries lack, for the mended Chainer 7.8.1 of mnist-bn: see mends.py there."""

import contextlib
import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import re
import types
import warnings

import numpy

# numpy.sctypes, as far as Chainer reads it.
SCTYPES = {
    "int": [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
    "float": [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
}

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


def _installed_version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


class _PkgResources(types.ModuleType):
    """The part of `pkg_resources` that Chainer uses, over importlib.metadata."""

    class ResolutionError(Exception):
        """A requirement is not met."""

    class DistributionNotFound(ResolutionError):
        """A distribution is not installed."""

    class VersionConflict(ResolutionError):
        """A distribution is installed in another version."""

    class WorkingSet:
        """What is installed."""

        def require(self, *requirements):
            pkg_resources.require(*requirements)

    def get_distribution(self, name):
        version = _installed_version(name)
        if version is None:
            raise self.DistributionNotFound(name)
        return types.SimpleNamespace(project_name=name, version=version)

    def require(self, *requirements):
        from packaging.requirements import Requirement

        for requirement in map(Requirement, requirements):
            version = self.get_distribution(requirement.name).version
            if not requirement.specifier.contains(version, prereleases=True):
                raise self.VersionConflict(f"{requirement.name} {version}", str(requirement))


pkg_resources = _PkgResources("pkg_resources")


def numpy_distutils_info(name):
    """Stands for numpy.distutils.system_info.get_info, of which Chainer asks if NumPy's BLAS is the
    Accelerate of macOS before 13.3: NumPy 2.0 has no wheel with that one.
    """
    return {}


def import_quietly(module, warning):
    """Imports a module, without the warning that begins so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", warning)
        return importlib.import_module(module)


def elementwise_with_float16(*arguments, **options):
    """chainer.backends.cuda.elementwise, for a kernel that names the type float16."""
    from chainer.backends import cuda

    if cuda._cupy_major >= 14:
        options["preamble"] = '#include "cupy/float16.cuh"\n'
    return cuda.elementwise(*arguments, **options)


def half_header():
    """Returns the line that a raw kernel needs if it names the type half."""
    from chainer.backends import cuda

    return "#include <cuda_fp16.h>\n" if cuda._cupy_major >= 14 else ""


def build_messages(description, namespace):
    """Adds the messages of a serialized protobuf file to a module's namespace; returns the file."""
    from google.protobuf import descriptor_pool
    from google.protobuf.internal import builder

    # A pool of its own: other packages bring a caffe.proto, too.
    file = descriptor_pool.DescriptorPool().AddSerializedFile(description)
    builder.BuildMessageAndEnumDescriptors(file, namespace)
    builder.BuildTopDescriptorsAndMessages(file, namespace["__name__"], namespace)
    return file


def load_cuda12():
    """Loads what pip has installed of CUDA 12: CuPy 13 finds it once it is loaded, 14 by itself."""
    if not re.match(r"13\.", _installed_version("cupy-cuda12x") or ""):
        return
    nvidia = importlib.util.find_spec("nvidia")
    for folder in nvidia.submodule_search_locations if nvidia else ():
        for package, library in CUDA12_LIBRARIES.items():
            with contextlib.suppress(OSError):  # not there, or not for this system
                ctypes.CDLL(os.path.join(folder, package, "lib", library), ctypes.RTLD_GLOBAL)


load_cuda12()
