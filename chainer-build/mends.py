"""The mends of Chainer 7.8.1: which words of its source are replaced, by which, and why.

Chainer is frozen, and Python, NumPy, setuptools, protobuf, CuPy and ONNX have gone on. Each mend
replaces a few words in one file, before the wheel is built, so that nothing has to be patched when
a program runs. Larger stand-ins are functions of `package/_mends.py`, which becomes
`chainer/_mends.py`. The source is known by its hash, so the words are there as often as said.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

LABEL = "+mended.2"  # of the version: raise the number with every change of a mend

USE_MENDS = "from chainer import _mends\n"


class Mend(NamedTuple):
    """One replacement: in the file `path`, `count` times, `old` becomes `new`."""

    path: str
    old: str
    new: str
    count: int = 1


def _importing_mends(path: str, first_import: str) -> Mend:
    """Has the file import `chainer._mends`, before an import of its own."""
    return Mend(path, f"\n{first_import}\n", f"\n{USE_MENDS}{first_import}\n")


PACKAGE = [
    # A stock Chainer in this one's place can be told by its version.
    Mend("chainer/_version.py", "'7.8.1'", f"'7.8.1{LABEL}'"),
    # First of all: CUDA's libraries must be loaded before CuPy is imported.
    Mend("chainer/__init__.py", "\nimport numpy\n", f"\nimport numpy\n\n{USE_MENDS}"),
    # pip then refuses what does not work. setuptools was asked for its pkg_resources only.
    Mend("setup.py", "'setuptools'", "'packaging'"),
    Mend("setup.py", "numpy>=1.9.0", "numpy>=2.0,<2.6"),
    Mend("setup.py", "protobuf>=3.0.0", "protobuf>=3.20"),
    Mend("setup.py", "'>=3.5.0'", "'>=3.11,<3.14'"),
]

# pkg_resources is gone from setuptools 82, numpy.distutils from Python 3.12.
SETUPTOOLS = [
    Mend("chainer/_environment_check.py", "import numpy.distutils.system_info\n", USE_MENDS),
    Mend(
        "chainer/_environment_check.py",
        "numpy.distutils.system_info.get_info",
        "_mends.numpy_distutils_info",
    ),
    *(
        Mend(path, "import pkg_resources\n", "from chainer._mends import pkg_resources\n")
        for path in (
            "chainer/_environment_check.py",
            "chainer/testing/doctest_helper.py",
            "chainer/testing/helper.py",
        )
    ),
]

NUMPY = [
    # numpy.sctypes: gone in NumPy 2.0.
    _importing_mends("chainer/functions/array/as_strided.py", "from chainer import backend"),
    Mend("chainer/functions/array/as_strided.py", "np.sctypes", "_mends.SCTYPES", count=2),
    # numpy.float, another name of float: gone in NumPy 1.24.
    Mend("chainer/functions/array/resize_images.py", "numpy.float)", "float)", count=6),
    # numpy.meshgrid gives a tuple since NumPy 2.0, to which no list can be added.
    Mend("chainer/distributions/categorical.py", "[mg + [", "[list(mg) + [", count=2),
    # NumPy 2.0's arrays have a `device` too, called "cpu" there and "CPU" here.
    Mend(
        "chainer/variable.py",
        "getattr(array, 'device', 'CPU')",
        "'CPU' if xp is numpy else getattr(array, 'device', 'CPU')",
    ),
    # int() of an array of shape (1,): an error since NumPy 2.4, and the other ranks wait on.
    Mend("chainermn/iterators/multi_node_iterator.py", "int(_size)", "int(_size.item())"),
    # copy=False meant "copy if needed"; since NumPy 2.0 and CuPy 14 it means "never".
    Mend(
        "chainermn/communicators/_memory_utility.py",
        "xp.array(v, copy=False, dtype",
        "xp.asarray(v, dtype",
    ),
]

# Chainer's own faults.
CHAINER = [
    # Chainer checks the inputs of a function twice: by their values and, if that fails, by
    # expressions that it can print, which are no conditions. Softmax, log_softmax and
    # softmax_cross_entropy have some (`if`, `a <= b < c`) and could not say what is wrong. Within
    # the check of a function an expression is now the condition that its values make.
    Mend(
        "chainer/utils/type_check.py",
        "        self.__nonzero__()\n",
        "        if getattr(_thread_local, 'current_function', None) is not None:\n"
        "            return bool(self.eval())\n"
        "        self.__nonzero__()\n",
    ),
    # The gradient of a deconvolution's W alone gives arrays where shapes are wanted. The input
    # gradient of a convolution is a deconvolution: its second-order gradients fail so.
    Mend(
        "chainer/functions/connection/deconvolution_2d.py",
        "self._set_cover_all(x, W)",
        "self._set_cover_all(x.shape, W.shape)",
    ),
]

# SciPy loads a part of itself when it is first asked for: 0.15 of the 0.4 s that Chainer takes to
# import went into parts that hardly a program uses.
SCIPY = [
    Mend("chainer/datasets/svhn.py", "from scipy import io\n", "import scipy\n"),
    Mend("chainer/datasets/svhn.py", "= io.loadmat", "= scipy.io.loadmat"),
    Mend("chainer/functions/math/sparse_matmul.py", "from scipy import sparse\n", "import scipy\n"),
    Mend(
        "chainer/functions/math/sparse_matmul.py",
        "= sparse.coo_matrix",
        "= scipy.sparse.coo_matrix",
        count=2,
    ),
    *(
        mend
        for name in ("erfcinv", "erfcx", "erfinv", "ndtri")
        for path in [f"chainer/functions/math/{name}.py"]
        for mend in (
            Mend(path, "from scipy import special\n", "import scipy\n"),
            Mend(path, f"array(special.{name}", f"array(scipy.special.{name}"),
        )
    ),
    Mend("chainer/distributions/multivariate_normal.py", "import scipy.linalg\n", "import scipy\n"),
]

CUPY = [
    # Chainer would warn of CuPy 13 and 14, and advise one below 8.
    Mend("chainer/_version.py", "'>=7.7.0,<8.0.0'", "'>=13,<15'"),
    # CuPy 13 warns that cupy.cudnn is deprecated: whoever makes errors of warnings would lose it.
    _importing_mends("chainer/backends/cuda.py", "from chainer import _backend"),
    Mend(
        "chainer/backends/cuda.py",
        "        import cupy.cudnn\n",
        "        _mends.import_quietly('cupy.cudnn', 'cupy.cudnn is deprecated')\n",
    ),
    # No advice to reinstall CuPy 14, which knows no cuDNN; requirements-cuda12.txt has it for 13.
    Mend("chainer/backends/cuda.py", "'_already_warned', False)", "'_already_warned', True)"),
    # cuDNN draws masks from a state of its own, which no seed reaches and no snapshot has. Without
    # it dropout draws from CuPy's generator.
    Mend(
        "chainer/functions/noise/dropout.py",
        "if (chainer.should_use_cudnn('>=auto', 5000)",
        "if (False",
    ),
    # CuPy warns, in ten lines, if NCCL is missing; nothing but this updater asks for it.
    _importing_mends(
        "chainer/training/updaters/multiprocess_parallel_updater.py",
        "from chainer.backends import cuda",
    ),
    Mend(
        "chainer/training/updaters/multiprocess_parallel_updater.py",
        "from cupy.cuda import nccl\n",
        "nccl = _mends.import_quietly('cupy.cuda.nccl', r'\\s*nccl library could not be')\n",
    ),
    # Kernels that name `float16` and `half`, whose headers CuPy 14 no longer includes.
    Mend(
        "chainer/training/updaters/multiprocess_parallel_updater.py",
        "return cuda.elementwise(",
        "return _mends.elementwise_with_float16(",
        count=2,
    ),
    Mend(
        "chainermn/communicators/_memory_utility.py",
        "import chainer.backends\n",
        f"import chainer.backends\n{USE_MENDS}",
    ),
    Mend(
        "chainermn/communicators/_memory_utility.py",
        "chainer.cuda.raw(r'''",
        "chainer.cuda.raw(_mends.half_header() + r'''",
        count=2,
    ),
]

ONNX = [
    # onnx.mapping is gone by now.
    *(
        Mend(path, "from onnx.mapping import", "from onnx_chainer._mapping_of_onnx import")
        for path in (
            "onnx_chainer/export.py",
            "onnx_chainer/functions/array.py",
            "onnx_chainer/functions/math.py",
        )
    ),
    Mend(
        "onnx_chainer/context.py",
        "from onnx_chainer import onnx_helper\n",
        "from onnx_chainer import _mapping_of_onnx\nfrom onnx_chainer import onnx_helper\n",
    ),
    Mend("onnx_chainer/context.py", "onnx.mapping.", "_mapping_of_onnx."),
    # export() stamps the newest IR version, which onnxruntime refuses. Opsets 7 to 11, all that it
    # writes, need no more than 6.
    Mend("onnx_chainer/export.py", "onnx.IR_VERSION", "min(onnx.IR_VERSION, 6)"),
]

MENDS = [*PACKAGE, *SETUPTOOLS, *NUMPY, *CHAINER, *SCIPY, *CUPY, *ONNX]

# Caffe's messages, in code generated for a protobuf before 4, which today's refuses to run. In that
# code stands the description of which protobuf (3.20 and later) makes the same messages.
CAFFE = "chainer/links/caffe/protobuf3/caffe_pb2.py"
CAFFE_DESCRIPTION = re.compile(r"serialized_pb=_b\(('.*?')\)$", re.MULTILINE)
CAFFE_MODULE = """\
from chainer._mends import build_messages

DESCRIPTOR = build_messages({}.encode("latin1"), globals())
"""

# Our own modules, and the packages that they become part of.
MODULES = {"_mends.py": "chainer", "_mapping_of_onnx.py": "onnx_chainer"}


def apply(source: Path) -> None:
    """Mends the source of Chainer in the folder `source`, and adds our modules to it.

    Raises:
        ValueError: the source has not the words that a mend replaces, as often as it says.
    """
    for mend in MENDS:
        path = source / mend.path
        text = path.read_text(encoding="utf-8")
        if text.count(mend.old) != mend.count:
            raise ValueError(
                f"{mend.path} has {mend.old!r} {text.count(mend.old)} times, not {mend.count}"
            )
        path.write_text(text.replace(mend.old, mend.new), encoding="utf-8")
    (description,) = CAFFE_DESCRIPTION.findall((source / CAFFE).read_text(encoding="utf-8"))
    (source / CAFFE).write_text(CAFFE_MODULE.format(description), encoding="utf-8")
    for module, package in MODULES.items():
        shutil.copy(Path(__file__).parent / "package" / module, source / package)
