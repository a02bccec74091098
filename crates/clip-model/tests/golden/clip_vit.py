"""Writes clip_vit/: a tiny random CLIPModel, inputs, outputs and gradient norms.

torch 2.9.0, transformers 5.24.0, safetensors 0.8.0. Run in this folder: python clip_vit.py
"""

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

torch.manual_seed(0)
EOS = 50

text = CLIPTextConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=12, hidden_act="gelu", layer_norm_eps=1e-5, bos_token_id=49, eos_token_id=EOS,
    pad_token_id=1, projection_dim=20,
)
vision = CLIPVisionConfig(
    hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8,
    hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=20,
)
config = CLIPConfig(
    text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=20, logit_scale_init_value=2.0
)
model = CLIPModel(config).eval()
with torch.no_grad():  # biases, norms and embeddings away from zero and one
    for p in model.parameters():
        p.add_(0.15 * torch.randn_like(p))
model.save_pretrained("clip_vit")

ids = torch.randint(3, 49, (4, 10))
ids[:, 0] = 49
ids[0, 6], ids[0, 3] = EOS, 60  # an id above the end token
ids[1, 4:] = EOS  # padded with the end token
ids[2, 9] = EOS  # the highest position
ids[3, 5], ids[3, 8] = 63, 63  # no end token; the highest id twice
pixels = torch.randn(4, 3, 32, 32)
larger = torch.randn(2, 3, 48, 40)
smaller = torch.randn(2, 3, 24, 16)

with torch.no_grad():
    encoded = model.text_model(input_ids=ids, output_hidden_states=True)
    out = {
        "input_ids": ids,
        "pixel_values": pixels,
        "larger_pixel_values": larger,
        "smaller_pixel_values": smaller,
        "text_last_hidden_state": encoded.last_hidden_state,
        "text_pooled": encoded.pooler_output,
        "text_penultimate": encoded.hidden_states[-2],
        "text_embedded": encoded.hidden_states[0],
    }
    model.text_model.eos_token_id = 2
    out["text_pooled_legacy"] = model.text_model(input_ids=ids).pooler_output
    model.text_model.eos_token_id = EOS
    seen = model.vision_model(pixel_values=pixels)
    out["vision_tokens"], out["vision_pooled"] = seen.last_hidden_state, seen.pooler_output
    for name, values in [("larger", larger), ("smaller", smaller)]:
        seen = model.vision_model(pixel_values=values, interpolate_pos_encoding=True)
        out[f"{name}_vision_tokens"], out[f"{name}_vision_pooled"] = seen.last_hidden_state, seen.pooler_output
    out["text_features"] = model.text_projection(encoded.pooler_output)
    out["image_features"] = model.visual_projection(out["vision_pooled"])

result = model(input_ids=ids, pixel_values=pixels, return_loss=True)
out["logits_per_image"] = result.logits_per_image.detach()
out["loss"] = result.loss.detach()
result.loss.backward()
for name, p in model.named_parameters():
    out[f"grad_norm.{name}"] = p.grad.norm()
save_file({k: v.contiguous() for k, v in out.items()}, "clip_vit/expected.safetensors")
