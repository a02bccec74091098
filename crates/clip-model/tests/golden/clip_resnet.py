"""Writes clip_resnet/: open_clip's ModifiedResNet with a tiny text tower of transformers, inputs and outputs.

The weights are rounded to f16 and stored so; all outputs are computed in f32.

torch 2.9.0, open_clip 3.3.0, transformers 5.24.0, safetensors 0.8.0. Run in this folder: python clip_resnet.py
"""

import json
import os

import torch
from open_clip.modified_resnet import ModifiedResNet
from safetensors.torch import save_file
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

torch.manual_seed(1)
DIM, SIZE, WIDTH, HEADS, LAYERS = 12, 64, 4, 4, [1, 2, 1, 1]

visual = ModifiedResNet(LAYERS, DIM, HEADS, image_size=SIZE, width=WIDTH).eval()
text_config = CLIPTextConfig(
    vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=8, hidden_act="quick_gelu", bos_token_id=38, eos_token_id=39, projection_dim=DIM,
)
text = CLIPTextModelWithProjection(text_config).eval()
with torch.no_grad():
    for p in [*visual.parameters(), *text.parameters()]:
        p.copy_((p + 0.1 * torch.randn_like(p)).half().float())
    for name, b in visual.named_buffers():
        if name.endswith("running_mean"):
            b.copy_((0.3 * torch.randn_like(b)).half().float())
        if name.endswith("running_var"):
            b.copy_((0.5 + torch.rand_like(b)).half().float())
        if name.endswith("num_batches_tracked"):
            b.fill_(7)
scale = torch.tensor(2.5)

weights = {f"visual.{k}": v for k, v in visual.state_dict().items()}
weights |= {k: v for k, v in text.state_dict().items()}
weights = {k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in weights.items()}
weights["logit_scale"] = scale.half()
os.makedirs("clip_resnet", exist_ok=True)
save_file(weights, "clip_resnet/model.safetensors", {"format": "pt"})
with open("clip_resnet/config.json", "w") as f:
    text_fields = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads max_position_embeddings "
        "hidden_act layer_norm_eps bos_token_id eos_token_id"
    ).split()
    json.dump(
        {
            "projection_dim": DIM,
            "logit_scale_init_value": 2.6592,
            "text_config": {k: getattr(text_config, k) for k in text_fields},
            "vision_config": {
                "model_type": "clip_modified_resnet", "layers": LAYERS, "width": WIDTH, "heads": HEADS,
                "image_size": SIZE,
            },
        },
        f, indent=2,
    )

ids = torch.randint(0, 38, (3, 8))
ids[:, 0] = 38
ids[0, 4:], ids[1, 7], ids[2, 2:] = 39, 39, 39
pixels = torch.randn(3, 3, SIZE, SIZE)
with torch.no_grad():
    image_features = visual(pixels)
    text_features = text(input_ids=ids).text_embeds
    x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
    a, b = (f / f.norm(dim=-1, keepdim=True) for f in (image_features, text_features))
    expected = {
        "input_ids": ids,
        "pixel_values": pixels,
        "features": x,
        "image_features": image_features,
        "text_features": text_features,
        "logits_per_image": scale.exp() * a @ b.T,
    }
    visual.train()
    expected["train_image_features"] = visual(pixels)
    expected["train_running_mean"] = visual.bn1.running_mean
    expected["train_running_var"] = visual.layer4[0].bn3.running_var
save_file({k: v.contiguous() for k, v in expected.items()}, "clip_resnet/expected.safetensors")
