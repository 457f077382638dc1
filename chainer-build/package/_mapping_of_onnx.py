"""What onnx_chainer uses of `onnx.mapping`, which is gone from onnx."""

import numpy
from onnx import helper

_FLOATS = ("float32", "float64")
_INTEGERS = ("int32", "int64", "uint32", "uint64", "bool")
_OTHERS = ("float16", "int8", "int16", "uint8", "uint16", "complex64", "complex128", "object")

NP_TYPE_TO_TENSOR_TYPE = {
    numpy.dtype(name): int(helper.np_dtype_to_tensor_dtype(numpy.dtype(name)))
    for name in _FLOATS + _INTEGERS + _OTHERS
}

# Constants of the others are written as raw bytes.
STORAGE_TENSOR_TYPE_TO_FIELD = {
    NP_TYPE_TO_TENSOR_TYPE[numpy.dtype(name)]: helper.tensor_dtype_to_field(
        NP_TYPE_TO_TENSOR_TYPE[numpy.dtype(name)]
    )
    for name in _FLOATS + _INTEGERS
}
