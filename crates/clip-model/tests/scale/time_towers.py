"""One pass through a CLIP tower of open_clip on random weights, timed whenever a line arrives.

Usage: time_towers.py CASE [--engine torch|onnxruntime]     (torch 2.9.0, open_clip 3.3.0, onnxruntime 1.32.0)

The protocol is in `passes.py`. The number of threads is OMP_NUM_THREADS.
"""

import argparse
import io
import os

import torch

from passes import serve

THREADS = int(os.environ["OMP_NUM_THREADS"])
torch.set_num_threads(THREADS)

# Backbone, tower, batch, whether the backward pass follows.
CASES = {
    "vit-forward": ("ViT-B-16-quickgelu", "image", 8, False),
    "rn50-forward": ("RN50-quickgelu", "image", 16, False),
    "vit-step": ("ViT-B-16-quickgelu", "image", 8, True),
    "rn50-step": ("RN50-quickgelu", "image", 16, True),
    "text-forward": ("ViT-B-16-quickgelu", "text", 64, False),
}


def torch_pass(tower, inputs, backward):
    if not backward:
        tower.eval()

        def run():
            with torch.inference_mode():
                tower(inputs)

        return run
    tower.train()

    def run():
        tower.zero_grad(set_to_none=True)
        tower(inputs).square().mean().backward()

    return run


def onnxruntime_pass(tower, inputs):
    import onnxruntime

    tower.eval()
    file = io.BytesIO()
    torch.onnx.export(tower, (inputs,), file, input_names=["x"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {"x": inputs.numpy()}
    return lambda: session.run(None, feed)


def main():
    import open_clip

    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--engine", choices=["torch", "onnxruntime"], default="torch")
    args = parser.parse_args()
    backbone, tower, batch, backward = CASES[args.case]
    torch.manual_seed(0)
    model = open_clip.create_model(backbone)
    if tower == "image":
        del model.transformer, model.token_embedding
        tower, inputs = model.visual, torch.randn(batch, 3, 224, 224)
    else:
        del model.visual
        inputs = torch.randint(1, 49406, (batch, 77))
        inputs[:, -1] = 49407
        model.forward = model.encode_text
        tower = model
    run = onnxruntime_pass(tower, inputs) if args.engine == "onnxruntime" else torch_pass(tower, inputs, backward)
    serve(2, run)


main()
