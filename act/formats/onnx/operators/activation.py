"""Activations: functions of one element, and softmax."""

from act.formats.onnx.node import Node, Variable
from act.formats.onnx.operators.registry import operator
from act.program.paddle_setup import paddle

F = paddle.nn.functional


@operator("Relu")
def relu(node: Node) -> Variable:
    return F.relu(node.tensor(0))


@operator("LeakyRelu")
def leaky_relu(node: Node) -> Variable:
    return F.leaky_relu(node.tensor(0), node.attribute("alpha", 0.01))
