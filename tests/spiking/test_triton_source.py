import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpap.spiking import kernel


def test_no_annotation_but_constexpr():
    """Triton's compiler refuses kernels with annotations that name other globals; its interpreter does not."""
    tree = ast.parse(Path(kernel.__file__).with_name("triton_source.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == ["forward", "backward"]
    annotations = {ast.unparse(a.annotation) for f in functions for a in f.args.args if a.annotation}
    assert annotations == {"tl.constexpr"}


COMPILED = """
import inspect, itertools
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dpap.spiking import triton_source

VALUES = {
    "STEPS": 3, "LEAK": True, "HARD": True, "KEEP": True, "DETACH": False, "LEARN": True, "SHARP": True,
    "FORMULA": "arctan",
    "BLOCK": 256,
}
PARAMETERS = ("rate", "sharpness", "d_rates", "d_narrow")
NUMBERS = {"units": "i32", "current_step": "i32", "upstream_step": "i32", "threshold": "fp32", "parameter": "fp32"}
for function, (given, kept) in itertools.product(
    (triton_source.forward, triton_source.backward), (("fp32", "fp32"), ("fp16", "fp32"), ("bf16", "bf16"))
):
    signature = {}
    for name in inspect.signature(function.fn).parameters:
        if name in VALUES:
            signature[name] = "constexpr"
        elif name in NUMBERS:
            signature[name] = NUMBERS[name]
        else:
            signature[name] = "*" + {"membrane": kept}.get(name, "fp32" if name in PARAMETERS else given)
    constants = {name: VALUES[name] for name in signature if name in VALUES}
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
"""


def test_kernels_compile_for_a_gpu_that_is_not_there():
    """The interpreter takes much that the compiler does not."""
    triton = pytest.importorskip("triton", minversion="3.5")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    source = Path(kernel.__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(source), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (triton.__version__, done.stderr[-2000:])
