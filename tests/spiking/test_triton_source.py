import ast
from pathlib import Path

from dpap.spiking import kernel


def test_no_annotation_but_constexpr():
    """Triton's compiler refuses kernels with annotations that name other globals; its interpreter does not."""
    tree = ast.parse(Path(kernel.__file__).with_name("triton_source.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == ["forward", "backward"]
    annotations = {ast.unparse(a.annotation) for f in functions for a in f.args.args if a.annotation}
    assert annotations == {"tl.constexpr"}
