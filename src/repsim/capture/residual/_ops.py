"""Torch functions by what they do to a value: keep, weight, bend or add to it.

They are listed by name because one operation reaches a ``TorchFunctionMode`` as a function, a
method or an operator.
"""

from __future__ import annotations

__all__ = [
    "ADDS",
    "CHANNELS_FIRST",
    "CHANNELS_LAST",
    "DIFFERENCES",
    "DROPOUTS",
    "INPLACE_ADDS",
    "INPLACE_OPERATORS",
    "JOINS",
    "MATRIX_PRODUCTS",
    "MAXIMA",
    "NONLINEAR",
    "PERMUTES",
    "READS",
    "SAME",
    "SCALES",
    "VIEWS",
    "WEIGHTS",
]

INPLACE_ADDS = frozenset({"add_", "__iadd__"})
ADDS = frozenset({"add", "__add__", "__radd__"}) | INPLACE_ADDS
"""Additions that may add a skip."""

INPLACE_OPERATORS = frozenset(
    {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"}
    | {"__iand__", "__ior__", "__ixor__", "__setitem__"}
)

DIFFERENCES = {"sub": 1, "__sub__": 1, "sub_": 1, "__isub__": 1, "rsub": 0, "__rsub__": 0}
"""Differences, and which of their two arguments is subtracted."""

JOINS = frozenset(
    {"sub", "__sub__", "__rsub__", "rsub", "sub_", "addcmul", "addcdiv", "lerp", "stack"}
)
"""Functions that may be a residual connection but are not followed; they are reported."""

MAXIMA = frozenset({"maximum", "max", "amax", "cummax", "fmax"})
"""A maximum is subtracted from scores so that exponents stay finite: no residual connection."""

CHANNELS_FIRST = frozenset(
    {f"conv{d}d" for d in (1, 2, 3)}
    | {f"conv_transpose{d}d" for d in (1, 2, 3)}
    | {"batch_norm", "group_norm", "instance_norm"}
)
CHANNELS_LAST = frozenset(
    {"linear", "bilinear", "addmm", "addbmm", "baddbmm", "matmul", "__matmul__", "mm", "bmm"}
    | {"layer_norm", "rms_norm", "embedding", "multi_head_attention_forward"}
)
"""Operations that show which axis of their result holds the features."""

WEIGHTS = frozenset(
    {name for name in CHANNELS_FIRST if name.startswith("conv")}
    | {"linear", "bilinear", "multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu"}
)
"""Products with a weight matrix of any origin."""

MATRIX_PRODUCTS = frozenset(
    {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum", "tensordot"}
    | {"addmm", "addbmm", "baddbmm", "_grouped_mm"}
)
"""Products with a weight matrix if one factor depends on no input."""

NONLINEAR = frozenset(
    {"relu", "relu_", "relu6", "gelu", "silu", "silu_", "mish", "elu", "selu", "celu", "glu"}
    | {"leaky_relu", "prelu", "rrelu", "softplus", "softmax", "log_softmax", "sigmoid", "sigmoid_"}
    | {"tanh", "tanh_", "hardtanh", "hardtanh_", "hardswish", "hardsigmoid", "logsigmoid", "elu_"}
    | {"softsign", "tanhshrink", "exp", "clamp", "clamp_", "maximum", "minimum", "erf"}
    | {"scaled_dot_product_attention", "multi_head_attention_forward", "lstm", "gru", "rnn_relu"}
    | {"rnn_tanh", "leaky_relu_"}
)
"""Nonlinearities of a branch. Powers are not among them because norms are written with them."""

PERMUTES = frozenset(
    {"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint"}
    | {"__get__"}  # x.T, x.mT
)
VIEWS = frozenset({"T", "mT", "H", "mH", "data"})
"""Attributes that return the tensor itself."""

SAME = PERMUTES | frozenset(
    {"view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel", "squeeze"}
    | {"unsqueeze", "contiguous", "clone", "alias", "detach", "detach_", "requires_grad_"}
    | {"to", "type", "type_as", "float", "half", "bfloat16", "double", "cuda", "cpu"}
)
"""Functions that keep the values and change only shape, dtype or device."""

SCALES = frozenset({"mul", "__mul__", "__rmul__", "div", "__truediv__"})
"""With a plain number these only scale, and a scaled skip is still a skip."""

DROPOUTS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"})
"""They return their input in evaluation mode."""

READS = frozenset(
    {"size", "dim", "ndimension", "stride", "numel", "nelement", "element_size", "data_ptr"}
    | {"is_contiguous", "is_floating_point", "is_complex", "storage_offset", "item", "tolist"}
    | {"__len__", "__bool__", "__int__", "__float__", "__index__", "__hash__", "__repr__"}
    | {"__format__", "backward", "register_hook", "retain_grad", "get_device", "equal", "allclose"}
    | {"is_nonzero", "is_same_size", "__deepcopy__", "__reduce_ex__", "numpy"}
)
"""Functions whose result need not be followed."""
