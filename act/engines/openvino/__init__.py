"""OpenVINO on the CPU."""

from act.engines.spec import Spec


def _snippet(file: str, precision: str, threads: int) -> str:
    hint = "bf16" if "bf16" in precision else "f32"
    return (
        "import openvino\n\n"
        "core = openvino.Core()\n"
        f'model = core.compile_model("{file}", "CPU", {{\n'
        f'    "INFERENCE_PRECISION_HINT": "{hint}",\n'
        f'    "INFERENCE_NUM_THREADS": "{threads}",\n'
        '    "NUM_STREAMS": "1",\n'
        '    "PERFORMANCE_HINT": "LATENCY",\n'
        '    "ENABLE_CPU_PINNING": "NO",\n'
        "})\n"
        "# feeds: {input name: array with the batch axis first}\n"
        "outputs = model(feeds)"
    )


SPEC = Spec(
    name="openvino",
    title="OpenVINO",
    runtime="act.engines.openvino.runtime:OpenVino",
    writer="act.engines.openvino.writer:OpenVinoWriter",
    reads="onnx",
    opens=("onnx", "paddle", "saved_model", "tflite"),
    # OpenVINO 2026 documentation, "Low Precision Transformations": Convolution, GroupConvolution, MatMul.
    int8_operators=("conv2d", "depthwise_conv2d", "conv2d_transpose", "matmul_v2", "mul"),
    default=0,
    tells_times=True,
    packages=("openvino",),
    snippet=_snippet,
    infer={"use_gpu": False},
)
