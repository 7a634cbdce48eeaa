"""Unsupported models are refused with the node and the supported form. Nothing is guessed."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_nets import make_random_weights

from tcc.compiler.importers.onnx_import.convert import CONVERTERS
from tcc.compiler.importers.onnx_import.refusal_causes import CAUSES
from tcc.compiler.support.diagnostics import UserError

ENTRY = b"PK\3\4" + bytes(22)
MISTAKEN = {
    "net.pt": (b"PK\3\4" + bytes(100), "a PyTorch checkpoint", "tcc import FILE --spec SPEC"),
    "net": (ENTRY + b"\x0c\0\0\0net/data.pkl", "a PyTorch checkpoint", "torch.onnx.export"),
    "old.bin": (b"\x80\2\x8a\x0al", "a PyTorch checkpoint", "tcc import FILE --spec SPEC"),
    "empty.pth": (b"", "a PyTorch checkpoint", "tcc import FILE --spec SPEC"),
    "net.bin": (b"\x40" + bytes(7) + b"{}", "a safetensors file", "tcc import FILE --spec SPEC"),
    "data.zip": (ENTRY + b"\x0a\0\0\0images.npy", "a file of NumPy arrays", "tcc calibrate"),
    "one.npy": (b"\x93NUMPY\1\0", "a file of NumPy arrays", "tcc eval"),
    "net.h5": (b"\x89HDF\r\n", "a Keras file", "tf2onnx"),
    "net.tflite": (b"\x1c\0\0\0TFL3", "a TFLite model", "as ONNX"),
    "photo": (b"\x89PNG\r\n", "an image", "tcc run BUNDLE IMAGE"),
    "net.txt": (b"# mine\ntcc: 1\nname: net\n", "a spec", "tcc check"),
}
"""First bytes of other file types by name, the type, and a command that reads it."""


@pytest.fixture
def refused(imported):
    """Returns the diagnostics of a refused file."""

    def run(path, **options):
        with pytest.raises(UserError) as caught:
            imported(path, **options)
        return caught.value.diagnostics

    return run


@pytest.fixture
def unfit(refused, write_model):
    """Returns the only diagnostic of a model, given as for `write_model`."""

    def run(*model, **model_options):
        (diagnostic,) = refused(write_model(*model, **model_options))
        return diagnostic

    return run


class TestFiles:
    def test_a_missing_file(self, refused, tmp_path):
        (diagnostic,) = refused(tmp_path / "no.onnx")
        assert (diagnostic.code, diagnostic.message) == (
            "E0901", "cannot read the model: No such file or directory"
        )  # fmt: skip

    @pytest.mark.parametrize("kind", ["a pipe", "a device"])
    def test_a_pipe_or_device(self, refused, tmp_path, kind):
        path = Path("/dev/zero")
        if kind == "a pipe":
            path = tmp_path / "pipe"
            os.mkfifo(path)
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.message) == (
            "E0901", f"cannot read the model: it is {kind}, not a file"
        )  # fmt: skip

    def test_a_file_name_in_any_encoding(self, imported, write_model):
        path = write_model("y = Relu (x)")
        model = imported(path.rename(path.parent / os.fsdecode(b"\xff\xe9.onnx")))
        assert "doc: Imported from ??.onnx.\n" in model.text

    def test_a_folder(self, refused, tmp_path):
        (diagnostic,) = refused(tmp_path)
        assert (diagnostic.code, diagnostic.message) == (
            "E0901",
            "cannot read the model: Is a directory",
        )

    @pytest.mark.parametrize("data", [b"", b"\0" * 64, b"hello, world", bytes(range(256)) * 9])
    def test_other_files(self, refused, tmp_path, data):
        path = tmp_path / "net.onnx"
        path.write_bytes(data)
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.message) == ("E0902", "this is not an ONNX model")

    @pytest.mark.parametrize("name", MISTAKEN)
    def test_files_of_other_commands(self, refused, tmp_path, name):
        head, file_kind, command = MISTAKEN[name]
        path = tmp_path / name
        path.write_bytes(head)
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.message) == (
            "E0902",
            f"this is {file_kind}, not an ONNX model",
        )
        assert command in diagnostic.help

    def test_every_truncation(self, refused, write_model):
        path = write_model("y = Conv (x, w)", {"w": make_random_weights(4, 4, 3, 3)})
        data = path.read_bytes()
        for end in range(0, len(data) - 1, 41):
            path.write_bytes(data[:end])
            assert {d.code for d in refused(path)} <= {"E0902", "E0904", "E0905", "E0910"}

    @pytest.mark.parametrize("opset", [6, 999])
    def test_opsets(self, refused, write_model, opset):
        path = write_model("y = Relu (x)")
        model = onnx.load(path)
        model.opset_import[0].version = opset
        onnx.save(model, path)
        (diagnostic,) = refused(path)
        assert diagnostic.code == "E0904"
        assert f"the opset is {opset}; supported: 7 to " in diagnostic.label

    def test_more_operators_than_a_classifier_has(self, refused, write_model):
        path = write_model("y = Relu (x)")
        model = onnx.load(path)
        for iteration in range(6000):
            model.graph.node.add(op_type="Relu", input=["y"], output=[f"z{iteration}"])
        onnx.save(model, path)
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.message) == ("E0901", "the graph is too large")
        assert diagnostic.label == "it has 6,001 nodes; the limit is 6,000"


class TestWeightsInOtherFiles:
    @pytest.fixture
    def outside(self, write_model):
        """Returns a model with weights at a location in another file."""

        def run(data=bytes(4 * 144), **location):
            path = write_model("y = Conv (x, w)", {"w": np.ones((4, 4, 3, 3), np.float32)})
            model = onnx.load(path)
            (tensor,) = model.graph.initializer
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in ({"location": "w.bin"} | location).items():
                tensor.external_data.add(key=key, value=str(value))
            path.write_bytes(model.SerializeToString())
            (path.parent / "w.bin").write_bytes(data)
            return path

        return run

    def test_external_weights_are_read(self, outside, imported):
        values = make_random_weights(4, 4, 3, 3)
        path = outside(b"****" + values.tobytes(), offset=4, length=4 * 144)
        np.testing.assert_array_equal(imported(path).weights["conv.weight"], values)

    @pytest.mark.parametrize(
        ("external_reference", "label"),
        [
            ({"location": "other.bin"}, "there is no file `other.bin` in the model's folder"),
            ({"location": ""}, "`` is not a file"),
            ({"location": "."}, "`.` is not a file"),
            ({"location": "/dev/zero"}, "`/dev/zero` is outside the model's folder"),
            ({"location": "../secret"}, "`../secret` is outside the model's folder"),
            ({"location": "link"}, "`link` is outside the model's folder"),
            ({"location": "a\0b"}, "there is no file `a\0b` in the model's folder"),
            ({"offset": "-4"}, "its offset or length in that file is invalid"),
            ({"offset": "1e3"}, "its offset or length in that file is invalid"),
            ({"length": 5}, "its offset or length in that file is invalid"),
            ({"length": 10**40}, "its offset or length in that file is invalid"),
            ({"offset": 4}, "`w.bin` is too short for it"),
        ],
    )
    def test_external_weights_must_be_in_the_folder(
        self, outside, refused, tmp_path, external_reference, label
    ):
        secret = tmp_path.parent / "secret"
        secret.write_bytes(bytes(4 * 144))
        (tmp_path / "link").symlink_to(secret)
        (diagnostic,) = refused(outside(**external_reference))
        assert (diagnostic.code, diagnostic.label) == ("E0903", label)

    def test_external_weights_are_bounded(self, outside, refused):
        path = outside()
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].dims[:] = [1 << 40, 4, 3, 3]
        path.write_bytes(model.SerializeToString())
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.message) == ("E0901", "the weights are too large")


class TestDamagedWeights:
    @pytest.fixture
    def damaged(self, write_model, refused):
        """Returns the diagnostic of a model with changed weights."""

        def run(change):
            path = write_model("y = Conv (x, w)", {"w": np.ones((4, 4, 3, 3), np.float32)})
            model = onnx.load(path)
            change(model.graph.initializer[0])
            path.write_bytes(model.SerializeToString())
            (diagnostic,) = refused(path)
            return diagnostic

        return run

    @pytest.mark.parametrize("dims", [[4, 4, 3], [1 << 40, 4, 3, 3], [-4, -4, 3, 3], [], [0]])
    def test_wrong_shape(self, damaged, dims):
        diagnostic = damaged(lambda tensor: tensor.dims.__setitem__(slice(None), dims))
        assert (diagnostic.code, diagnostic.message) == (
            "E0902",
            "weights of the model are damaged",
        )
        shape = "x".join(map(str, dims)) or "()"
        assert diagnostic.label.startswith(f"`w` of shape {shape}: ")

    @pytest.mark.parametrize("kind", [0, 8, 11, 99])
    def test_wrong_type(self, damaged, kind):
        diagnostic = damaged(lambda tensor: setattr(tensor, "data_type", kind))
        assert (diagnostic.code, diagnostic.message) == (
            "E0902",
            "weights of the model are damaged",
        )

    @pytest.mark.parametrize("size", [0, 575, 577, 580])
    def test_wrong_length(self, damaged, size):
        diagnostic = damaged(lambda tensor: setattr(tensor, "raw_data", bytes(size)))
        assert (diagnostic.code, diagnostic.message) == (
            "E0902",
            "weights of the model are damaged",
        )

    def test_sparse_weights(self, write_model, refused):
        path = write_model("y = Conv (x, w)", {"w": np.ones((4, 4, 3, 3), np.float32)})
        model = onnx.load(path)
        model.graph.sparse_initializer.add().values.CopyFrom(model.graph.initializer[0])
        path.write_bytes(model.SerializeToString())
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.message) == (
            "E0902",
            "sparse weights are not supported",
        )


class TestInputs:
    def model(self, write_model, dims=None, element_type=TensorProto.FLOAT, extra_inputs=()):
        path = write_model("y = Relu (x)")
        model = onnx.load(path)
        if dims is not None:
            kind = helper.make_tensor_value_info("x", element_type, dims)
            model.graph.input[0].CopyFrom(kind)
        model.graph.input.extend(extra_inputs)
        onnx.save(model, path)
        return path

    @pytest.mark.parametrize(
        ("dims", "element_type", "message", "label"),
        [
            ([1, 4, 6, 6], TensorProto.UINT8, "the input must be float32", "`x` is uint8"),
            ([1, 4, 6, 6], TensorProto.FLOAT16, "the input must be float32", "`x` is float16"),
            ([8, 4, 6, 6], TensorProto.FLOAT, "the batch axis must be dynamic or 1",
             "`x` has a batch size of 8"),
            ([1, 4], TensorProto.FLOAT, "the input must be batch x channels x height x width",
             "`x` has 2 axes, not 4"),
            (["N", 4, "H", "W"], TensorProto.FLOAT, "the file does not define the image size",
             "`x` is 4x?x?"),
        ],
    )  # fmt: skip
    def test_unsupported_inputs(self, write_model, refused, dims, element_type, message, label):
        (diagnostic,) = refused(self.model(write_model, dims, element_type))
        assert (diagnostic.code, diagnostic.message, diagnostic.label) == ("E0905", message, label)

    def test_two_inputs(self, write_model, refused):
        second = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3])
        (diagnostic,) = refused(self.model(write_model, extra_inputs=[second]))
        assert diagnostic.message == "the graph must have one input, an image"
        assert diagnostic.label == "its inputs: `x`, `z`"

    def test_an_open_size_can_be_set(self, write_model, imported, refused):
        path = self.model(write_model, ["N", 4, "H", "W"])
        assert imported(path, shape=(4, 7, 5)).spec.graph.inputs[0].type.shape == (4, 7, 5)
        (diagnostic,) = refused(path, shape=(3, 7, 5))
        assert diagnostic.label == "in the file 4x?x?, with --shape 3x7x5"

    def test_weights_listed_as_inputs_are_no_inputs(self, write_model, imported):
        path = write_model("y = Conv (x, w)", {"w": make_random_weights(4, 4, 3, 3)})
        model = onnx.load(path)
        model.graph.input.append(helper.make_tensor_value_info("w", 1, [4, 4, 3, 3]))
        onnx.save(model, path)
        assert imported(path).difference < 1e-6


class TestOperators:
    def test_all_unsupported_operators_are_reported_together(self, refused, write_model):
        text = (
            "a = Sin (x) b = Sin (a) c = Elu (b) d = Relu (c)"
            " e = Conv <dilations = [2, 2]> (x, v) f = Add (d, e) y = Softplus (f)"
        )
        diagnostics = refused(write_model(text, {"v": make_random_weights(4, 4, 1, 1)}))
        assert [(d.code, d.message) for d in diagnostics] == [
            ("E0910", "Sin: tcc does not support this function"),
        ]
        assert str(diagnostics[0].at).startswith(str(write_model(text)))
        assert "node `Sin_0`" in diagnostics[0].at.file
        assert diagnostics[0].help.startswith(
            "train the network with a supported one: relu, relu6, "
        )

    @pytest.mark.parametrize(
        ("text", "message", "help"),
        [
            (
                "t = Transpose <perm = [0, 1, 3, 2]> (x) y = MatMul (x, t)",
                "MatMul: this is self-attention, which multiplies two computed values",
                "tcc does not support attention: use a convolutional network, or import only the part"
                " before it: --until t",
            ),
            (
                "r = Relu (x) y = LogSoftmax <axis = 1> (r)",
                "LogSoftmax: tcc does not support postprocessing of outputs",
                "import only the part before it: --until r",
            ),
            (
                "r = Relu (x) y = InstanceNormalization (r, four, four)",
                "InstanceNormalization: tcc does not support this normalization, only batch_norm and"
                " layer_norm over the channels",
                "train the network with one of these",
            ),
            (
                "y = DepthToSpace <blocksize = 2> (x)",
                "DepthToSpace: tcc does not support this rearrangement of pixels",
                "use strided convolutions or resize instead",
            ),
            (
                "y = Concat <axis = 1> (x, token)",
                "Concat: it concatenates a constant with a value",
                "constants can only be added or multiplied; class tokens of transformers are not supported",
            ),
            (
                "y = Add (x, full)",
                "Add: its constant is not the same for all pixels",
                "use one constant per channel; position embeddings of transformers are not supported",
            ),
        ],
    )
    def test_causes_of_unsupported_operators(self, unfit, text, message, help):
        weights = {
            "four": make_random_weights(4),
            "token": make_random_weights(1, 1, 6, 6),
            "full": make_random_weights(4, 6, 6),
        }
        used = {name: value for name, value in weights.items() if name in text}
        diagnostic = unfit(text, used)
        assert (diagnostic.message, diagnostic.help) == (message, help)

    def test_a_transformer_is_refused_for_its_attention(self, refused, write_model):
        """Reported first, whatever comes before it in the file."""
        text = (
            "f = Reshape (x, rows) t = Transpose <perm = [0, 2, 1]> (f) p = Add (t, places)"
            " n = LayerNormalization (p, four, four) k = Transpose <perm = [0, 2, 1]> (n)"
            " a = MatMul (n, k) s = Softmax (a) y = MatMul (s, n)"
        )
        weights = {
            "rows": np.int64([0, 4, 36]),
            "places": make_random_weights(1, 36, 4),
            "four": make_random_weights(4),
        }
        attention, addition = refused(write_model(text, weights, outputs={"y": 3}))
        assert attention.message == (
            "MatMul: this is self-attention, which multiplies two computed values"
        )
        assert attention.notes == ("also `MatMul_7`",)
        assert "use a convolutional network" in attention.help
        assert addition.message == "Add: its constant is not the same for all pixels"

    def test_every_known_operator_has_a_cause(self):
        """No known ONNX operator is reported as unknown."""
        operators = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
        assert not CAUSES.keys() & CONVERTERS.keys()
        assert not CAUSES.keys() - operators

    def test_operators_after_a_refused_one_are_not_reported(self, refused, write_model):
        diagnostics = refused(write_model("a = Sin (x) b = Elu (x) y = Add (a, b)"))
        assert [d.message.partition(":")[0] for d in diagnostics] == ["Sin", "Elu"]

    def test_equal_refusals_are_reported_once(self, refused, write_model):
        text = " ".join(f"a{i} = Sin (x)" for i in range(12))
        total = "y = Sum (" + ", ".join(f"a{i}" for i in range(12)) + ")"
        (diagnostic,) = refused(write_model(f"{text} {total}"))
        assert diagnostic.notes == (
            "also `Sin_1`, `Sin_2`, `Sin_3`, `Sin_4`, `Sin_5`, `Sin_6`, `Sin_7` and 4 more",
        )

    def test_a_custom_domain(self, refused, tmp_path):
        node = helper.make_node("Relu", ["x"], ["y"], "mine", domain="com.acme")
        tensors = [helper.make_tensor_value_info(n, 1, [1, 4, 6, 6]) for n in "xy"]
        graph = helper.make_graph([node], "net", tensors[:1], tensors[1:])
        domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
        path = tmp_path / "net.onnx"
        onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.at.file) == ("E0910", f"{path}: node `mine`")
        assert diagnostic.message == "Relu: tcc does not support custom operators from outside ONNX"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("y = Clip (x, zero, vast)", "it clips to 0 ... 65504"),
            ("y = Max (x, x2)", "it compares two computed values"),
            ("y = Min (x, four)", "it compares two computed values"),
            ("y = PRelu (x, full)", "its constant is not the same for all pixels"),
            ("y = Softmax <axis = 2> (x)", "its axis is not the channels"),
            ("y = ReduceMean <axes = [1]> (x)", "it reduces axes other than height and width"),
            ("y = ReduceMean <axes = [3]> (x)", "it reduces axes other than height and width"),
            (
                "t = Transpose <perm = [0, 1, 3, 2]> (x) y = MaxPool <kernel_shape = [2, 2]> (t)",
                "its input is a reshaped or transposed value of shape 4x6x6",
            ),
            (
                "s = Slice (x, one, three, two) y = MaxPool <kernel_shape = [1, 1]> (s)",
                "its input is a reshaped or transposed value of shape 4x2x6",
            ),
            (
                "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)",
                "its window is dilated",
            ),
            ("y = Concat <axis = 2> (x, x2)", "its axis is not the channels"),
            ("y = Mul (x, full)", "its constant is not the same for all pixels"),
            ("y = Div (one4, x)", "it divides by a computed value"),
            ("y = Pow (x, half)", "its exponent is not a constant 2 or 3"),
            (
                'y = Pad <mode = "reflect"> (x, border)',
                "its mode is `reflect`; only `constant` is supported",
            ),
            (
                "y = Pad (x, deep)",
                "it crops, or pads axes other than height and width",
            ),
            (
                'y = Resize <mode = "cubic"> (x, none, scales)',
                "its mode `cubic` is not supported",
            ),
            (
                'y = Resize <mode = "linear"> (x, none, third)',
                "its factor 1.3 turns 6 into 7 pixels, with rounding",
            ),
            (
                'y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners">'
                " (x, none, scales)",
                "`linear` with `align_corners` coordinates is not supported here",
            ),
            (
                "y = MatMul (x, square)",
                "its input is neither a vector nor the channels of each pixel",
            ),
            ("y = Conv (x, x3)", "its input 1 is computed; weights must be constants"),
            ("y = Cast <to = 10> (x)", "it casts to float16, not to float32"),
            (
                "y = LayerNormalization <axis = 1> (x, full)",
                "it normalizes over several axes, not only over the channels",
            ),
        ],
    )
    def test_unsupported_forms_of_operators(self, unfit, text, message):
        weights = {
            "w": make_random_weights(4, 4, 3, 3),
            "zero": np.float32(0).reshape(()),
            "half": np.float32(0.5).reshape(()),
            "one4": np.float32([1]),
            "four": make_random_weights(4, 1, 1),
            "full": make_random_weights(4, 6, 6),
            "square": make_random_weights(6, 6),
            "one": np.int64([1]),
            "two": np.int64([2]),
            "three": np.int64([3]),
            "border": np.int64([0, 0, 1, 1, 0, 0, 1, 1]),
            "deep": np.int64([0, 1, 0, 0, 0, 1, 0, 0]),
            "none": np.zeros(0, np.float32),
            "scales": np.float32([1, 1, 2, 2]),
            "vast": np.float32(65504).reshape(()),
            "third": np.float32([1, 1, 2, 1.3]),
        }
        used = {name: value for name, value in weights.items() if name in text}
        diagnostic = unfit(f"x2 = Relu (x) x3 = Relu (x2) {text}", used)
        assert diagnostic.code == "E0911"
        assert diagnostic.message.partition(": ")[2] == message

    def test_non_finite_weights(self, refused, write_model):
        weights = {"w": np.full((4, 4, 3, 3), np.nan, np.float32)}
        (diagnostic,) = refused(write_model("y = Conv (x, w)", weights))
        assert (diagnostic.code, diagnostic.message) == (
            "E0506",
            "144 of 144 values of conv.weight are not finite",
        )


class TestOutputs:
    @pytest.mark.parametrize("axis", [2, 3, 4])
    def test_an_output_without_a_batch_axis(self, refused, write_model, axis):
        path = write_model(f"r = Relu (x) y = Flatten <axis = {axis}> (r)", outputs={"y": 2})
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.message) == (
            "E0906",
            "the output `y` is not a feature map or a vector",
        )

    @pytest.mark.parametrize("axis", [2, 3])
    def test_a_linear_layer_on_rows_that_are_not_images(self, unfit, axis):
        n = 6 ** (4 - axis)
        diagnostic = unfit(
            f"f = Flatten <axis = {axis}> (x) y = Gemm (f, w)",
            {"w": make_random_weights(n, 3)},
            outputs={"y": 2},
        )
        assert (diagnostic.code, diagnostic.message) == (
            "E0911",
            "Gemm: its input is neither a vector nor the channels of each pixel",
        )

    def test_an_output_that_is_neither_map_nor_vector(self, unfit):
        diagnostic = unfit("y = Transpose <perm = [0, 2, 3, 1]> (x)")
        assert (diagnostic.code, diagnostic.message) == (
            "E0906",
            "the output `y` is not a feature map or a vector",
        )

    def test_a_network_without_operators(self, unfit):
        assert (
            unfit("y = Identity (x)").message
            == "the network has no operators that change its input"
        )

    def test_an_import_can_stop_before_unknown_operators(self, refused, imported, write_model):
        path = write_model("a = Relu (x) bent = Tanh (a) y = Sin (bent)")
        assert [d.code for d in refused(path)] == ["E0910"]
        model = imported(path, until=("bent", "a"))
        assert [o.name for o in model.spec.graph.outputs] == ["bent", "a"]
        (unknown,) = refused(path, until=("bnet",))
        assert (unknown.message, unknown.help) == (
            "no value of the file is called `bnet`",
            "did you mean `bent`?",
        )

    def test_labels_must_match_the_number_of_classes(self, refused, imported, write_model):
        text = "g = GlobalAveragePool (x) y = Flatten (g)"
        path = write_model(text, outputs={"y": 2})
        model = imported(path, labels=("a", "1", "no", "a d"))
        assert 'labels: [a, "1", "no", a d]' in model.text
        assert model.spec.graph.outputs[0].labels == ("a", "1", "no", "a d")
        (short,) = refused(path, labels=("a", "b"))
        assert (short.code, short.label) == ("E0906", "2 labels, but the output has shape 4")


class TestNames:
    @pytest.mark.parametrize(
        ("file_name", "identifier"),
        [
            ("input.1", "input_1"),
            ("1", "_1"),
            ("C", "_C"),
            ("Bild \u00e9\n", "Bild"),
            ("::", "image"),
            ("true", "true"),
            ("x" * 99, "x" * 60),
        ],
    )
    def test_names_become_identifiers(self, write_model, imported, file_name, identifier):
        path = write_model("y = Relu (x)")
        model = onnx.load(path)
        model.graph.input[0].name = model.graph.node[0].input[0] = file_name
        model.graph.output[0].name = model.graph.node[0].output[0] = f"{file_name}."
        onnx.save(model, path)
        graph = imported(path).spec.graph
        assert graph.inputs[0].name == (f"{identifier}_2" if identifier != "image" else identifier)
        assert graph.outputs[0].name == (identifier if identifier != "image" else "output")

    def test_names_that_are_no_text(self, refused, write_model):
        path = write_model("y = Relu (x)")
        path.write_bytes(path.read_bytes().replace(b"Relu", b"R\xff\xfeu"))
        (diagnostic,) = refused(path)
        assert (diagnostic.code, diagnostic.message) == ("E0902", "this is not an ONNX model")


def test_networks_beyond_the_language_limits(refused, write_model, monkeypatch):
    from tcc.compiler.frontend import expansion

    monkeypatch.setattr(expansion, "MAX_NODES", 2)
    path = write_model("a = Relu (x) b = Tanh (a) y = Sigmoid (b)")
    (diagnostic,) = refused(path)
    assert (diagnostic.code, diagnostic.at.file) == ("E0401", str(path))
