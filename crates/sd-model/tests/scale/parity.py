"""References of full-size Stable Diffusion models from diffusers and transformers on random weights.

Usage: parity.py FOLDER CHECKPOINT...     (torch 2.9.0, diffusers 0.42.1, transformers 5.24.0, open_clip 3.3.0)

For each checkpoint (1.5, 2.0-base, 2.0, 2.1-base, 2.1) writes the diffusers folder FOLDER/<checkpoint> with the published
configurations and the libraries' own random initialisation from seed 0, and `reference.safetensors` in it: inputs, text
states, one UNet call at the model's resolution (two latents of 64x64, one of 96x96), the autoencoder's moments and image at 512
pixels, and four guided steps of DDIM at half the resolution. One network is in memory at a time: at most 8 GB.
"""

import gc
import json
import shutil
import sys
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
SCHEDULE = dict(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
)
TEXT = dict(vocab_size=49408, max_position_embeddings=77, bos_token_id=0, eos_token_id=2, pad_token_id=1)
GUIDANCE_SCALE = 7.5
STEPS = 4


class Shape:
    def __init__(self, checkpoint):
        is_v1 = checkpoint == "1.5"
        self.resolution = 768 if checkpoint in ("2.0", "2.1") else 512
        self.prediction_type = "v_prediction" if self.resolution == 768 else "epsilon"
        self.unet = dict(
            sample_size=self.resolution // 8, cross_attention_dim=768 if is_v1 else 1024, down_block_types=DOWN,
            up_block_types=UP, attention_head_dim=8 if is_v1 else [5, 10, 20, 20], use_linear_projection=not is_v1,
        )
        if is_v1:
            text = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu")
        else:
            text = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu")
        self.text = TEXT | text
        self.vae = dict(
            sample_size=self.resolution, block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        )


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(make, folder):
    """A network from its own initialisation, saved."""
    torch.manual_seed(0)
    model = make().eval()
    model.save_pretrained(folder)
    gc.collect()
    return model


def write(folder, checkpoint):
    shape = Shape(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    (folder / "tokenizer").mkdir(exist_ok=True)
    shutil.copy(vocabulary, folder / "tokenizer")
    scheduler = DDIMScheduler(prediction_type=shape.prediction_type, **SCHEDULE)
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}) + "\n")
    tensors = {}

    text_encoder = made(lambda: CLIPTextModel(CLIPTextConfig(**shape.text)), folder / "text_encoder")
    ids = open_clip.get_tokenizer("ViT-B-32")(["a photo of a cat", "two dogs in the snow, painted in oil on canvas", ""])
    states = text_encoder(ids).last_hidden_state
    tensors |= {"input_ids": ids, "text_states": states}
    del text_encoder

    vae = made(lambda: AutoencoderKL(**shape.vae), folder / "vae")
    pixels = normal(1, 1, 3, 512, 512).clamp(-1, 1)
    posterior = vae.encode(pixels).latent_dist
    latents = normal(2, 1, 4, 64, 64)
    tensors |= {"pixels": pixels, "mean": posterior.mean, "logvar": posterior.logvar}
    tensors |= {"vae_latents": latents, "decoded": vae.decode(latents).sample}
    del vae

    unet = made(lambda: UNet2DConditionModel(**shape.unet), folder / "unet")
    size = shape.resolution // 8
    batch = 2 if size == 64 else 1
    sample, timesteps = normal(3, batch, 4, size, size), torch.tensor([981.0, 1.0])[:batch]
    output = unet(sample, timesteps, states[:batch]).sample
    tensors |= {"sample": sample, "timesteps": timesteps, "output": output}
    print(f"{checkpoint}: text {states.std():.3f}, output {output.std():.3f}, decoded {tensors['decoded'].std():.3f}", file=sys.stderr)

    noise = normal(4, 1, 4, size // 2, size // 2)
    latents = noise
    scheduler.set_timesteps(STEPS)
    context = torch.cat([states[2:3], states[:1]])
    for timestep in scheduler.timesteps:
        negative, prompted = unet(torch.cat([latents] * 2), timestep, context).sample.chunk(2)
        latents = scheduler.step(negative + GUIDANCE_SCALE * (prompted - negative), timestep, latents).prev_sample
    tensors |= {"noise": noise, "latents": latents}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "reference.safetensors")


def main():
    torch.set_num_threads(2)
    with torch.no_grad():
        for checkpoint in sys.argv[2:]:
            write(Path(sys.argv[1]) / checkpoint, checkpoint)
            gc.collect()


if __name__ == "__main__":
    main()
