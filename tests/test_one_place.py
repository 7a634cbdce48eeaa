"""An op and a pass are added in one place: done here in a copy of the tree by text edits."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("compiler", "spec", "tests", "tools")
LINKED = ("backends", "zoo", "pyproject.toml")
MISH = '''\
@dataclass(frozen=True, slots=True)
class Mish(ScalarFunction):
    """x * tanh(log(1 + exp(x)))."""

    keyword: ClassVar[str] = "mish"
    onnx_operator: ClassVar[str] = "Mish"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return mish."""
        return (Call("mish", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Softplus, Tanh and Mul."""
        return (
            Call("Softplus", ("x0",), output="s"),
            Call("Tanh", ("s",), output="t"),
            Call("Mul", ("x0", "t")),
        )

    def evaluate(self, x: Float64) -> Float64:
        """Return it; the logarithm does not overflow."""
        return np.asarray(x * np.tanh(np.logaddexp(0.0, x)))


'''
OP = {
    "compiler/ops/activation.py": (
        ("@dataclass(frozen=True, slots=True)\nclass Softmax(", MISH),
        (",\n)  # fmt: skip", ", Mish"),
    )
}
PASS = {
    "compiler/passes/__init__.py": (
        (
            "from tcc.compiler.passes.fill_bias",
            "from tcc.compiler.passes.drop_unit_scale import drop_unit_scale\n",
        ),
        ("drop_train_only, drop_identity,", "drop_unit_scale, "),
    )
}
DROP_UNIT_SCALE = '''\
"""Leave out scales by one."""

from tcc.compiler.ir.graph import Model, Node, exact_pass
from tcc.compiler.ir.rewrite import Bypass, RewriteContext, rewrite
from tcc.compiler.ops import Scale


@exact_pass
def drop_unit_scale(model: Model) -> Model:
    """Leave out what is scaled by one.

    Identity: exact.
    """
    return rewrite(model, _rule)


def _rule(node: Node, view: RewriteContext) -> Bypass | None:
    return Bypass(node.inputs[0]) if node.op == Scale(1.0, 0.0) else None
'''
SPEC = """\
tcc: 1
name: mishy
input: {image: {shape: [3, 8, 8]}}
graph:
  - conv: {filters: 4, kernel: 3}
  - mish
  - scale
  - global_avg_pool
  - flatten
  - activation: {kind: mish}
output: {y: {}}
"""
TextInsertions = Mapping[str, tuple[tuple[str, str], ...]]


class Tree:
    """A copy of the project with text inserted before other text."""

    def __init__(self, at: Path, insertions: TextInsertions) -> None:
        self.at = at
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "golden.*")
            shutil.copytree(ROOT / name, at / name, ignore=ignored)
        for name in LINKED:
            (at / name).symlink_to(ROOT / name)
        package = at / "src" / "tcc"
        package.mkdir(parents=True)
        for source in (ROOT / "src" / "tcc").iterdir():
            if source.is_symlink():
                (package / source.name).symlink_to(at / source.name)
            elif source.is_file():
                shutil.copy(source, package)
        shutil.copytree(ROOT / "src/tcc/testing", package / "testing")
        for name, changes in insertions.items():
            text = (at / name).read_text()
            for anchor, inserted_text in changes:
                assert text.count(anchor) == 1, anchor
                text = text.replace(anchor, inserted_text + anchor)
            (at / name).write_text(text)
        (at / "net.yaml").write_text(SPEC)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run Python in the copy."""
        env = os.environ | {"PYTHONPATH": str(self.at / "src")}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.at, env=env, capture_output=True, text=True, check=False
        )

    def tcc(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run tcc in the copy."""
        program = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
        return self.run("-c", program, *arguments)

    def run_tests(self, keyword: str, *files: str) -> None:
        """Run the tests of the copy that match a keyword."""
        completed = self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", keyword, *files)
        assert completed.returncode == 0, completed.stdout + completed.stderr


@pytest.fixture(scope="module")
def with_mish(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("mish"), OP)


def test_a_new_op_is_a_keyword_of_the_language(with_mish: Tree) -> None:
    shown_spec = with_mish.tcc("show", "net.yaml")
    assert shown_spec.returncode == 0, shown_spec.stderr
    assert "mish" in shown_spec.stdout
    misspelt = with_mish.at / "misspelt.yaml"
    misspelt.write_text(SPEC.replace("- mish", "- nn.Mish"))
    refused_check = with_mish.tcc("check", "misspelt.yaml")
    assert refused_check.returncode == 2
    assert "misspelt.yaml:6:5" in refused_check.stderr
    assert "write `mish`" in refused_check.stderr


def test_a_target_without_the_op_refuses_it_with_its_location(with_mish: Tree) -> None:
    completed = with_mish.tcc("build", "net.yaml", "--target", "arm-a7,tflite")
    assert completed.returncode == 2, completed.stderr
    for target in ("arm-a7", "tflite"):
        for line, op_name in ((6, "mish"), (10, "activation")):
            message = f"error[E0607]: {target} cannot run `{op_name}` (mish)\n"
            assert completed.stderr.partition(message)[2].split()[1].endswith(f"net.yaml:{line}:5")
    assert not (with_mish.at / "build").exists()


def test_generated_files_list_the_new_op(with_mish: Tree) -> None:
    assert with_mish.run("tools/make_reference.py").returncode == 0
    reference = (with_mish.at / "spec/reference.md").read_text()
    assert "| `mish` | - | x * tanh(log(1 + exp(x))). |" in reference
    assert "| Mish | there is none" not in reference
    assert '"mish": {' in (with_mish.at / "spec/schema/spec.schema.json").read_text()


@pytest.mark.nightly
def test_the_new_op_passes_the_tests_of_every_op(with_mish: Tree) -> None:
    """Torch and ONNX match, it round-trips through ONNX, its table is exact, targets list it."""
    write = "import refused_ops as r; r.LISTED.write_text(r.refused_ops())"
    program = f"import sys; sys.path.insert(0, 'tests'); {write}"
    assert with_mish.run("-c", program).returncode == 0
    refused_lines = (with_mish.at / "tests/golden/refused_ops.txt").read_text().split("\n")
    assert {"arm-a7: mish", "tflite: mish"} <= set(refused_lines)
    with_mish.run_tests(
        "mish or every_op_has_a_case or reported_as_such",
        "tests/compiler/ops/test_activation.py",
        "tests/compiler/frontend/test_framework_aliases.py",
        *(
            str(path.relative_to(ROOT))
            for path in (ROOT / "tests").rglob("test_*.py")
            if uses_op_cases(path)
        ),
    )


def uses_op_cases(path: Path) -> bool:
    """Whether a test file uses the table of op cases."""
    return (
        re.search(
            r"^from tcc\.testing\.op_cases import .*\bCASES\b", path.read_text(), re.MULTILINE
        )
        is not None
    )


@pytest.fixture(scope="module")
def with_pass(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("pass"), PASS)
    (tree.at / "compiler/passes/drop_unit_scale.py").write_text(DROP_UNIT_SCALE)
    (tree.at / "net.yaml").write_text(SPEC.replace("mish", "relu"))
    return tree


def test_a_new_pass_is_listed_and_runs(with_pass: Tree) -> None:
    assert "drop_unit_scale" in with_pass.tcc("passes", "--quiet").stdout.split()
    spec_graph, rewritten_graph = (
        with_pass.tcc("show", "net.yaml", *options).stdout
        for options in ((), ("--passes", "drop_unit_scale"))
    )
    assert "scale" in spec_graph
    assert "relu" in rewritten_graph
    assert "scale" not in rewritten_graph
    build = ("build", "net.yaml", "--target", "onnxruntime", "--verify-passes")
    completed = with_pass.tcc(*build, "--passes", "drop_unit_scale")
    assert completed.returncode == 0, completed.stderr


@pytest.mark.slow
def test_a_new_pass_is_described_and_tested(with_pass: Tree) -> None:
    assert with_pass.run("tools/make_passes.py").returncode == 0
    row = "| `drop_unit_scale` | exact | Leave out what is scaled by one. |"
    assert row in (with_pass.at / "spec/passes.md").read_text()
    with_pass.run_tests(
        "scale-vector or names or every_pass_has", "tests/compiler/passes/test_every_pass.py",
        "tests/compiler/passes/test_pipelines.py", "tests/compiler/cli/test_passes.py",
    )  # fmt: skip
