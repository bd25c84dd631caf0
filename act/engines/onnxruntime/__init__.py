"""ONNX Runtime on the CPU."""

from act.engines.spec import Spec


def _snippet(file: str, precision: str, threads: int) -> str:
    return (
        "import onnxruntime\n\n"
        "options = onnxruntime.SessionOptions()\n"
        f"options.intra_op_num_threads = {threads}\n"
        f'session = onnxruntime.InferenceSession(\n    "{file}", options, providers=["CPUExecutionProvider"]\n)\n'
        "# feeds: {input name: array with the batch axis first}\n"
        "outputs = session.run(None, feeds)"
    )


SPEC = Spec(
    name="onnxruntime",
    title="ONNX Runtime",
    runtime="act.engines.onnxruntime.runtime:OnnxRuntime",
    writer="act.engines.onnxruntime.writer:OnnxRuntimeWriter",
    reads="onnx",
    opens=("onnx",),
    # ONNX Runtime 1.32 documentation, "Quantize ONNX models": QLinearConv, MatMulInteger / QGemm.
    int8_operators=("conv2d", "depthwise_conv2d", "matmul_v2", "mul"),
    default=1,
    tells_times=True,
    packages=("onnxruntime",),
    snippet=_snippet,
    infer={"use_gpu": False},
)
