"""Writes *.keys.tsv: names and shapes of public checkpoints, from the reference implementations without weights.

torch 2.9.0, transformers 5.24.0, open_clip 3.3.0. Run in this folder: python keys.py
"""

import torch
from open_clip.modified_resnet import ModifiedResNet
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

with torch.device("meta"):
    # openai/clip-vit-base-patch16
    vit = CLIPModel(CLIPConfig(vision_config={"patch_size": 16}))
    # the visual tower of OpenAI's RN50
    resnet = ModifiedResNet([3, 4, 6, 3], 1024, 32, image_size=224, width=64)
    # text_encoder of Stable Diffusion 2; published files put it below text_model.
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
        hidden_act="gelu", projection_dim=512,
    ))


def write(name, state, prefix=""):
    with open(f"{name}.keys.tsv", "w") as f:
        for key in sorted(state):
            f.write(f"{prefix}{key}\t{','.join(map(str, state[key].shape))}\n")


write("clip_vit_base_patch16", vit.state_dict())
write("rn50_visual", resnet.state_dict(), "visual.")
write("sd2_text_encoder", {k.removeprefix("text_model."): v for k, v in text.state_dict().items()}, "text_model.")
