"""Face networks of the published inputs and outputs, small enough to know what they say.

The detector finds white squares on darker ground: a cell whose pixels are all white has a face of
fixed distances and points around it. The recogniser's embedding is the mean colour of parts of the
face. Their files have the names, shapes and order of outputs of InsightFace's.
"""

import numpy as np
from onnx_files import graph, model, node

POINTS = ((-0.5, -0.5), (0.5, -0.5), (0.0, 0.0), (-0.4, 0.5), (0.4, 0.5))
"""Of a face, from the cell's corner, in strides."""

EDGES = (2.0, 2.0, 2.0, 2.0)


def detector(sides=(None, None), batched=False, at=8):
    """A file like det_10g.onnx: nine outputs, scores, boxes and points at strides 8, 16 and 32.

    Args:
        sides: Height and width it is fixed to, None for open ones.
        batched: Whether outputs have an axis for the batch.
        at: The stride that finds faces.
    """
    height, width = (side or name for side, name in zip(sides, ("h", "w"), strict=True))
    nodes, constants = [], {"flat": np.array([1, -1, 1] if batched else [-1, 1])}
    constants |= {"zero": np.float32(0), "one": np.float32(1)}
    nodes += [node("ReduceMin", "input.1", "grey", axes=[1], keepdims=1)]
    nodes += [node("Neg", "grey", "dark")]
    outputs = {}
    for stride in (8, 16, 32):
        size = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes += [
            node("MaxPool", "dark", f"darkest{stride}", **size),
            node("Neg", f"darkest{stride}", f"least{stride}"),
        ]
        # 1 for white only; a second anchor that says less
        shift = np.float32(0.05 if stride == at else 5.0)
        constants[f"shift{stride}"] = shift
        nodes += [
            node("Sub", f"least{stride} shift{stride}", f"first{stride}"),
            node("Sub", f"first{stride} one", f"second{stride}"),
            node("Concat", f"first{stride} second{stride}", f"two{stride}", axis=1),
            node("Transpose", f"two{stride}", f"last{stride}", perm=[0, 2, 3, 1]),
            node("Reshape", f"last{stride} flat", f"score_{stride}"),
        ]
        outputs[f"score_{stride}"] = ["a", 1]
    for what, row in (("bbox", np.array(EDGES)), ("kps", np.array(POINTS).ravel())):
        for stride in (8, 16, 32):
            constants[f"{what}{stride}"] = row.astype(np.float32)[None]
            nodes += [
                node("Mul", f"score_{stride} zero", f"zeros_{what}{stride}"),
                node("Add", f"zeros_{what}{stride} {what}{stride}", f"{what}_{stride}"),
            ]
            outputs[f"{what}_{stride}"] = ["a", row.size]
    if batched:
        outputs = {name: ["b", *shape] for name, shape in outputs.items()}
    shape = {"input.1": [1, 3, height, width]}
    return model(graph(nodes, shape, outputs, constants))


def recogniser(batch="None", side=112, width=512):
    """A file like w600k_r50.onnx: faces (B, 3, 112, 112) to embeddings (B, 512)."""
    generator = np.random.default_rng(4)
    weights = generator.standard_normal((3 * 16, width)).astype(np.float32)
    step = side // 4
    nodes = [
        node("AveragePool", "input.1", "parts", kernel_shape=[step, step], strides=[step, step]),
        node("Flatten", "parts", "flat", axis=1),
        node("MatMul", "flat weights", "683"),
    ]
    body = graph(
        nodes, {"input.1": [batch, 3, side, side]}, {"683": [batch, width]}, {"weights": weights}
    )
    return model(body)


def write(folder, **settings):
    """Write both into a folder; return their paths."""
    paths = folder / "det_10g.onnx", folder / "w600k_r50.onnx"
    paths[0].write_bytes(detector(**settings))
    paths[1].write_bytes(recogniser())
    return paths
