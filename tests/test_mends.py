"""The mended Chainer 7.8.1 on the libraries of today: each mend does what it is for."""

import ast
import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import _mends

PROJECT = Path(__file__).parents[1]


def run_python(*arguments, path=(), timeout=100):
    """Runs a fresh Python with warnings as errors; returns its output, and fails if it fails."""
    path = os.pathsep.join(map(str, (PROJECT, *path)))
    run = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def load_fresh(name, folder):
    """Returns a fresh copy of the module `name` in `folder`, but not in sys.modules."""
    path = Path(folder, name.rpartition(".")[2] + ".py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- The numbers -------------------------------------------------------------------------------


def test_as_strided_gradient_counts_how_often_each_element_was_used():
    x = chainer.Variable(np.arange(4, dtype=np.float32))
    windows = F.as_strided(x, (3, 2), (1, 1), 0)
    np.testing.assert_array_equal(windows.array, [[0, 1], [1, 2], [2, 3]])
    F.sum(windows).backward()
    np.testing.assert_array_equal(x.grad, [1, 2, 2, 1])


def test_resize_images_interpolates_between_aligned_corners():
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    np.testing.assert_allclose(F.resize_images(x, (1, 7)).array[0, 0, 0], np.arange(7) / 2)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("bilinear", [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]),
        ("nearest", [0, 0, 1, 1, 2, 2, 3, 3]),
    ],
)
def test_resize_images_not_aligned(mode, expected):
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    y = F.resize_images(x, (1, 8), mode=mode, align_corners=False)
    np.testing.assert_allclose(y.array[0, 0, 0], expected)


def test_resize_images_gradient_is_the_transposed_interpolation():
    x = chainer.Variable(np.zeros((1, 1, 1, 4), np.float32))
    F.sum(F.resize_images(x, (1, 7))).backward()
    np.testing.assert_allclose(x.grad[0, 0, 0], [1.5, 2, 2, 1.5])


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_categorical_log_prob(shape):
    rng = np.random.RandomState(0)
    p = rng.dirichlet(np.ones(4), size=shape).astype(np.float32)
    x = rng.randint(4, size=shape)
    log_prob = chainer.distributions.Categorical(p).log_prob(np.asarray(x)).array
    expected = np.log(np.take_along_axis(p, np.asarray(x)[..., None], axis=-1)[..., 0])
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)


def test_debug_print_says_cpu_as_chainer_says_it():
    text = chainer.Variable(np.zeros(3, np.float32)).debug_print()
    assert "- device: CPU\n- backend: <class 'numpy.ndarray'>\n- shape: (3,)" in text


CE = F.softmax_cross_entropy
X, T = np.ones((4, 3), np.float32), np.zeros(4, np.int32)
BAD_INPUTS = {
    "labels of another length": (lambda: CE(X, T[:3]), r"x\.shape\[0\] == "),
    "labels with an axis more": (lambda: CE(X, T[:, None]), "t.ndim == x.ndim"),
    "labels that are floats": (lambda: CE(X, T * 1.0), r"x\.shape == t\.shape"),
    "labels that are bytes": (lambda: CE(X, T.astype("u1")), "u != f"),
    "logits that are integers": (lambda: CE(T[:, None], T), "i != f"),
    "softmax of another axis": (lambda: F.softmax(X, axis=2), "2 <= 2"),
    "softmax before the first": (lambda: F.softmax(X, axis=-3), "Actual: -2 > -3"),
    "softmax of integers": (lambda: F.softmax(T[:, None]), "i != f"),
    "log_softmax of another axis": (lambda: F.log_softmax(X, axis=2), "2 <= 2"),
    "log_softmax of integers": (lambda: F.log_softmax(T[:, None]), "i != f"),
    "gumbel_softmax": (lambda: F.gumbel_softmax(X, axis=2), "2 <= 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_type_check_says_what_it_expects(name):
    call, said = BAD_INPUTS[name]
    with pytest.raises(chainer.utils.type_check.InvalidType, match=rf"Expect: [\s\S]*{said}"):
        call()


def test_elsewhere_an_expression_is_no_condition():
    """The control of the test above; Chainer's documentation says so."""
    x = chainer.utils.type_check.Variable(1, "x")
    with pytest.raises(RuntimeError, match="cannot be evaluated as bool"):
        bool(x == 1)


def test_caffe_models_go_out_and_come_in(tmp_path):
    pytest.importorskip("google.protobuf")
    from chainer.exporters import caffe
    from chainer.links.caffe import CaffeFunction

    convolution, bn = chainer.links.Convolution2D(1, 4, 3), chainer.links.BatchNormalization(4)
    linear = chainer.links.Linear(36, 3)
    network = chainer.Sequential(
        convolution, bn, F.relu, lambda h: F.max_pooling_2d(h, 2), linear, F.softmax
    )
    x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    with chainer.using_config("train", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        caffe.export(network, [chainer.Variable(x)], str(tmp_path), True)
        function = CaffeFunction(str(tmp_path / "chainer_model.caffemodel"))
        (y,) = function({"data": x}, outputs=[function.layers[-1][0]])
        np.testing.assert_allclose(y.array, network(x).array, rtol=1e-6)


def test_caffe_messages_import_again_and_beside_another_caffe_proto():
    pytest.importorskip("google.protobuf.internal.builder")
    name = "chainer.links.caffe.protobuf3.caffe_pb2"
    messages = importlib.reload(importlib.import_module(name))
    assert messages.V1LayerParameter.CONVOLUTION == 4 and messages.TEST == 1
    layer = messages.NetParameter(name="a").layer.add(name="conv", type="Convolution")
    assert messages.LayerParameter.FromString(layer.SerializeToString()).name == "conv"
    from google.protobuf import descriptor_pb2, descriptor_pool

    other = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="another.caffe")
    descriptor_pool.Default().AddSerializedFile(other.SerializeToString())


def test_second_order_gradient_through_the_input_of_a_convolution():
    """With y = conv(x, W) and gx its gradient by x for gy = 1: d(sum gx^2)/dW, by differences."""
    rng = np.random.default_rng(0)
    x = chainer.Variable(rng.standard_normal((2, 3, 6, 5)))
    w = chainer.Variable(rng.standard_normal((4, 3, 3, 3)))

    def squared_input_gradient(w):
        y = F.convolution_2d(x, w, stride=2, pad=1)
        (gx,) = chainer.grad([F.sum(y)], [x], enable_double_backprop=True)
        return F.sum(gx * gx)

    squared_input_gradient(w).backward()
    direction = rng.standard_normal(w.shape)
    step = 1e-4 * direction
    ahead, behind = (squared_input_gradient(chainer.Variable(w.array + s)) for s in (step, -step))
    expected = (ahead.item() - behind.item()) / 2e-4
    np.testing.assert_allclose((w.grad * direction).sum(), expected, rtol=1e-6)


# --- CuPy 14 and ChainerMN, with stand-ins for what is not installed -----------------------------


@pytest.fixture
def kernels(monkeypatch):
    """Records what is asked of CuPy: the arguments of elementwise() and raw()."""
    recorded = []
    cuda = chainer.backends.cuda
    monkeypatch.setattr(
        cuda, "elementwise", lambda *args, **kwargs: recorded.append((args, kwargs))
    )
    monkeypatch.setattr(cuda, "raw", lambda *args: recorded.append((args, {})))
    return recorded


@pytest.fixture
def chainermn_folder(monkeypatch):
    """The folder of chainermn, whose modules then import without MPI."""
    for name in (
        "mpi4py",
        "mpi4py.MPI",
        "chainermn",
        "chainermn.communicators",
        "chainermn.communicators._communication_utility",
    ):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    sys.modules["mpi4py.MPI"].FLOAT = None
    return Path(chainer.__file__).parents[1] / "chainermn"


@pytest.mark.parametrize("cupy", [0, 13, 14])
def test_kernels_of_parallel_updater_include_float16_on_cupy_14(kernels, monkeypatch, cupy):
    monkeypatch.setattr(chainer.backends.cuda, "_cupy_major", cupy)
    name = "chainer.training.updaters.multiprocess_parallel_updater"
    updater = load_fresh(name, Path(chainer.training.updaters.__file__).parent)
    updater._memcpy_gather()
    updater._memcpy_scatter()
    assert len(kernels) == 2
    for arguments, options in kernels:
        assert "float16" in arguments[2]
        assert "loop_prep" in options
        included = options.get("preamble") == '#include "cupy/float16.cuh"\n'
        assert included == (cupy == 14)


@pytest.mark.parametrize("cupy", [0, 13, 14])
def test_kernels_of_chainermn_include_half_on_cupy_14(kernels, chainermn_folder, monkeypatch, cupy):
    monkeypatch.setattr(chainer.backends.cuda, "_cupy_major", cupy)
    name = "chainermn.communicators._memory_utility"
    memory = load_fresh(name, chainermn_folder / "communicators")
    memory._cupy_batched_pack_params()
    memory._cupy_batched_unpack_params()
    assert [arguments[1] for arguments, _ in kernels] == [
        "cupy_batched_pack_params",
        "cupy_batched_unpack_params",
    ]
    for (code, _), _ in kernels:
        assert "half*" in code
        assert code.startswith("#include <cuda_fp16.h>\n") == (cupy == 14)


FLOAT16 = """
#include "cupy/float16.cuh"
extern "C" __global__ void copy(const float16* x, float16* y) { y[threadIdx.x] = x[threadIdx.x]; }
"""


@pytest.mark.parametrize("capability", ["80", "90", "100"])
def test_what_is_included_compiles(kernels, chainermn_folder, capability):
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    if not chainer.backends.cuda.available:
        pytest.skip(f"CuPy does not find CUDA: {chainer.backends.cuda._resolution_error}")
    name = "chainermn.communicators._memory_utility"
    memory = load_fresh(name, chainermn_folder / "communicators")
    memory._cupy_batched_pack_params()
    memory._cupy_batched_unpack_params()
    sources = [code for (code, _), _ in kernels]
    if chainer.backends.cuda._cupy_major >= 14:
        sources.append(FLOAT16)
    site_packages = Path(chainer.backends.cuda.cupy.__file__).parents[1]
    folders = [site_packages / "cupy" / "_core" / "include"]
    folders += site_packages.glob("nvidia/*/include")
    options = [f"-arch=sm_{capability}", *(f"-I{folder}" for folder in folders)]
    for source in sources:
        program = nvrtc.createProgram(source, "kernel.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError:
            pytest.fail(nvrtc.getProgramLog(program))
        finally:
            nvrtc.destroyProgram(program)


@pytest.mark.parametrize("transfer_dtype", [np.float16, np.float32])
def test_chainermn_unpacks_gradients_of_another_dtype(chainermn_folder, transfer_dtype):
    class Buffer:
        def to_device(self, array, size, offset, stream):
            assert array.dtype == transfer_dtype
            array[...] = np.arange(array.size) + offset // array.itemsize

    name = "chainermn.communicators._memory_utility"
    memory = load_fresh(name, chainermn_folder / "communicators")
    parameters = [chainer.Parameter(np.zeros(n, np.float32)) for n in (3, 2)]
    for parameter in parameters:
        parameter.cleargrad()
    memory.unpack_params(parameters, "grad", Buffer(), transfer_dtype, zero_fill=True)
    assert [parameter.grad.tolist() for parameter in parameters] == [[0, 1, 2], [3, 4]]
    assert all(parameter.grad.dtype == np.float32 for parameter in parameters)


def test_chainermn_iterator_takes_the_size_of_the_dataset_from_its_master(chainermn_folder):
    messages = [np.full((1,), 60000, np.float32), np.array([2, 0, 1], np.float32)]
    communicator = types.SimpleNamespace(bcast=lambda message, root: messages.pop(0))
    name = "chainermn.iterators.multi_node_iterator"
    iterators = load_fresh(name, chainermn_folder / "iterators")
    iterator = iterators._MultiNodeIteratorSlave(communicator, rank_master=0)
    assert iterator.dataset_size == 60000
    assert iterator._order.tolist() == [2, 0, 1]


CHAINERMN = """
import chainer, chainermn, numpy
communicator = chainermn.create_communicator("naive")
link = chainer.links.Linear(3, 2)
optimizer = chainermn.create_multi_node_optimizer(chainer.optimizers.SGD(), communicator)
optimizer.setup(link)
for _ in range(2):  # the first only hands out the parameters of rank 0
    optimizer.update(lambda: chainer.functions.sum(link(numpy.ones((4, 3), "float32"))))
numpy.testing.assert_allclose(link.b.array, [-0.04, -0.04], rtol=1e-6)
iterator = chainer.iterators.SerialIterator(numpy.arange(4, dtype="float32"), 2, shuffle=False)
iterator = chainermn.iterators.create_multi_node_iterator(iterator, communicator)
assert next(iterator) == [0, 1]
"""


def test_chainermn_with_mpi():
    pytest.importorskip("mpi4py.MPI", exc_type=ImportError)
    run_python("-W", "ignore", "-c", CHAINERMN)


ONNX = """
import sys, numpy as np, onnx, onnx_chainer
import chainer, chainer.functions as F, chainer.links as L
net = chainer.Sequential(L.Convolution2D(1, 2, 3), L.BatchNormalization(2), F.relu, L.Linear(5))
x = np.random.RandomState(0).rand(4, 1, 8, 8).astype("float32")
with chainer.using_config("train", False):
    y = net(x).array
for opset in (7, 11):
    model = onnx_chainer.export(net, x, opset_version=opset)
    onnx.checker.check_model(model)
    assert model.ir_version <= 6
    if "onnxruntime" in sys.argv:
        import onnxruntime
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (z,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_allclose(z, y, atol=1e-5)
"""


def test_onnx_export():
    pytest.importorskip("onnx")
    runtime = ["onnxruntime"] if importlib.util.find_spec("onnxruntime") else []
    run_python("-W", "ignore", "-c", ONNX, *runtime)


def test_missing_cudnn_is_no_news(monkeypatch):
    cuda = chainer.backends.cuda
    monkeypatch.setattr(cuda, "available", True)
    monkeypatch.setattr(cuda, "cudnn_enabled", False)
    monkeypatch.setattr(cuda, "_cudnn_disabled_by_user", False, raising=False)
    cuda.check_cuda_available()  # a warning is an error here


def test_missing_nccl_is_no_news(tmp_path):
    cuda = tmp_path / "cupy" / "cuda"
    cuda.mkdir(parents=True)
    (tmp_path / "cupy" / "__init__.py").touch()
    (cuda / "__init__.py").touch()
    (cuda / "nccl.py").write_text(
        "import warnings\nwarnings.warn('\\nnccl library could not be loaded.\\n')"
    )
    run_python("-c", "import chainer", path=[tmp_path])  # a warning is an error there


@pytest.mark.parametrize("cupy", ["13.6.0", "14.2.0", None])
def test_only_cupy_13_needs_cuda_loaded_for_it(monkeypatch, tmp_path, cupy):
    monkeypatch.setattr(_mends, "_installed_version", lambda name: cupy)
    for folder, library in [("cublas", "libcublas.so.12"), ("cudnn", "libcudnn.so.9")]:
        (tmp_path / folder / "lib").mkdir(parents=True)
        (tmp_path / folder / "lib" / library).touch()
    nvidia = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: nvidia)
    loaded = []

    def load(path, mode):
        if not os.path.exists(path):
            raise OSError(path)
        loaded.append((path, mode))

    monkeypatch.setattr(ctypes, "CDLL", load)
    _mends.load_cuda12()
    found = [(str(tmp_path / "cublas" / "lib" / "libcublas.so.12"), ctypes.RTLD_GLOBAL)]
    assert loaded == (found if cupy == "13.6.0" else [])


def test_cupys_warning_of_its_cudnn_module_does_not_cost_cudnn(tmp_path):
    module = "import warnings; warnings.warn('cupy.cudnn is deprecated. Use', DeprecationWarning)"
    (tmp_path / "deprecated.py").write_text(module)
    code = "from chainer._mends import import_quietly; import_quietly('deprecated', {!r})"
    run_python("-c", code.format("cupy.cudnn is deprecated"), path=[tmp_path])
    with pytest.raises(AssertionError, match="DeprecationWarning"):
        run_python("-c", code.format("another"), path=[tmp_path])


@pytest.mark.parametrize("cudnn", [True, False])
def test_dropout_on_a_gpu_draws_from_cupys_generator(monkeypatch, cudnn):
    """With NumPy in CuPy's place: the mask is that of `rand`, whether there is cuDNN or not."""
    cuda = chainer.backends.cuda
    rng = np.random.RandomState(0)
    random = types.SimpleNamespace(rand=lambda *shape, dtype: rng.rand(*shape).astype(dtype))
    monkeypatch.setattr(cuda, "cupy", types.SimpleNamespace(random=random))
    monkeypatch.setattr(chainer, "should_use_cudnn", lambda *arguments: cudnn)

    def kernel(x, rand, scale, ratio):
        mask = (rand >= ratio) * scale
        return mask, x * mask

    monkeypatch.setattr(cuda, "elementwise", lambda *arguments: kernel)
    x = np.ones((3, 4), np.float32)
    dropout = F.noise.dropout.Dropout(0.5)
    (y,) = dropout.forward_gpu((x,))
    assert np.array_equal(y, 2 * (np.random.RandomState(0).rand(3, 4).astype(np.float32) >= 0.5))
    assert dropout.mask is not None


def asked_of(names, source):
    """Yields the attributes in `source` of one of `names`: ["cupy", "zeros"] for cupy.zeros."""
    for node in ast.walk(ast.parse(source)):
        chain = []
        while isinstance(node, ast.Attribute):
            chain.append(node.attr)
            node = node.value
        if chain and isinstance(node, ast.Name) and node.id in names:
            yield [node.id, *reversed(chain)]


@pytest.mark.filterwarnings(r"ignore:\s*cupy.cuda.nvtx_enabled")
def test_cupy_has_all_that_chainer_asks_it_for():
    cupy, cupyx = pytest.importorskip("cupy"), pytest.importorskip("cupyx")
    if not chainer.backends.cuda.available:
        pytest.skip(f"CuPy does not find CUDA: {chainer.backends.cuda._resolution_error}")
    missing = set()
    for path in Path(chainer.__file__).parent.rglob("*.py"):
        text = path.read_text().replace("chainer.backends.cuda.", "cuda.")
        for name, *chain in asked_of(("xp", "cupy", "cupyx"), text.replace("cuda.cupy", "cupy")):
            found = cupyx if name == "cupyx" else cupy
            for attribute in chain:
                found = getattr(found, attribute, None)
            if found is None:
                missing.add(".".join(chain))
    # Only asked for where cuDNN is in use; cupy.util where cupy._util is not.
    without_cudnn = {"cudnn", "cuda.cudnn", "cudnn.create_spatial_transformer_descriptor"}
    expected = set() if chainer.backends.cuda.cudnn_enabled else without_cudnn
    assert {name for name in missing if not name.startswith("util")} <= expected


# --- Importing -----------------------------------------------------------------------------------

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pkg_resources", "setuptools") or name.startswith("numpy.distu"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
"""

REQUIREMENTS = """
import chainer, chainer.testing, chainer.testing.doctest_helper
@chainer.testing.with_requires("numpy>=2.0")
def runs():
    pass
@chainer.testing.with_requires("numpy>=2.0", "numpy<2.0")
def too_new():
    pass
@chainer.testing.with_requires("no-such-distribution")
def missing():
    pass
skipped = [getattr(f, "__unittest_skip__", False) for f in (runs, too_new, missing)]
assert skipped == [False, True, True], skipped
"""


def test_chainer_imports_by_itself():
    run_python("-c", "import chainer; assert 'mnist_bn' not in __import__('sys').modules")


def test_scipys_parts_load_when_they_are_first_used():
    run_python(
        "-c",
        """
import sys, chainer, chainer.functions as F, numpy
parts = {"scipy.io", "scipy.linalg", "scipy.sparse", "scipy.special"}
assert not parts & sys.modules.keys()
x = numpy.array([0.25, 0.5], numpy.float32)
for function, inverse in ((F.erf, F.erfinv), (F.erfc, F.erfcinv), (F.ndtr, F.ndtri)):
    assert abs(inverse(function(x)).array - x).max() < 1e-6
assert abs(F.erfcx(x).array / (numpy.exp(x * x) * F.erfc(x).array) - 1).max() < 1e-6
matrix = numpy.eye(2, dtype=numpy.float32)
product = F.sparse_matmul(chainer.utils.to_coo(3 * matrix), matrix)
assert (product.array == 3 * matrix).all()
normal = chainer.distributions.MultivariateNormal(loc=x, scale_tril=2 * matrix)
assert abs(normal.log_prob(x).array + numpy.log(8 * numpy.pi)) < 1e-6
assert chainer.datasets.svhn._scipy_available and chainer.datasets.svhn.scipy.io.loadmat
""",
    )


@pytest.mark.parametrize("hidden", ["", HIDE])
def test_requirements_are_checked_without_pkg_resources(hidden):
    macos = "sys.platform = 'darwin'; chainer._environment_check.check()"
    run_python("-c", f"import sys\n{hidden}{REQUIREMENTS}{macos}")


def test_nothing_stands_in_for_modules_or_in_numpy():
    run_python(
        "-c",
        """
import sys, chainer, chainer.testing, numpy
meta_path = {type(finder).__module__.split(".")[0] for finder in sys.meta_path}
assert not meta_path & {"chainer", "mnist_bn"}, meta_path
assert not {"pkg_resources", "numpy.distutils", "onnx.mapping"} & sys.modules.keys()
assert not {"sctypes", "float", "distutils"} & vars(numpy).keys()
""",
    )


def test_modules_reload_and_pickle():
    run_python(
        "-c",
        """
import importlib, inspect, pickle
import chainer, numpy
resize = importlib.import_module("chainer.functions.array.resize_images")
assert inspect.getsource(resize)
indices = resize.compute_indices_and_weights
assert pickle.loads(pickle.dumps(indices)) is indices
importlib.reload(resize).compute_indices_and_weights((2, 2), (4, 4), "nearest", False, numpy)
assert importlib.reload(chainer).Variable(numpy.ones(1)).debug_print().count("CPU") == 1
""",
    )


# --- Worker processes ----------------------------------------------------------------------------

PROCESSES = """
import multiprocessing, sys
import chainer, numpy
def double(x):
    return (2 * chainer.Variable(x)).array
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    x = numpy.arange(6, dtype="float32")
    with multiprocessing.Pool(1) as pool:
        assert pool.apply(double, (x,)).tolist() == (2 * x).tolist()
    iterator = chainer.iterators.MultiprocessIterator(
        chainer.datasets.TupleDataset(x, x), 3, repeat=False, shuffle=False, n_processes=1)
    batches = [[float(a) for a, _ in batch] for batch in iterator]
    assert batches == [[0, 1, 2], [3, 4, 5]]
    iterator.finalize()
"""

TASK = """
import chainer
def double(x):
    return (2 * chainer.Variable(x)).array
"""

LOKY = """
import joblib, numpy, task
x = numpy.ones(3, "float32")
results = joblib.Parallel(n_jobs=2)(joblib.delayed(task.double)(x) for _ in range(2))
assert [y.tolist() for y in results] == [[2, 2, 2]] * 2
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_worker_processes(tmp_path, start_method):
    script = tmp_path / "script.py"
    script.write_text(PROCESSES)
    # Chainer's iterator starts a thread before it forks: Python 3.12 warns of that.
    run_python("-W", "ignore::DeprecationWarning", script, start_method)


def test_joblib_workers(tmp_path):
    pytest.importorskip("joblib")
    (tmp_path / "task.py").write_text(TASK)
    run_python("-c", LOKY, path=[tmp_path])
