"""Writes the UNet and autoencoder cases beside this script.

Made with torch 2.9.0, diffusers 0.42.1, safetensors 0.8.0 on a CPU: `python networks.py`.
Each case is a folder in the diffusers form (config.json, diffusion_pytorch_model.safetensors) plus golden.safetensors with
the inputs and the outputs.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.set_num_threads(1)


def randomize(model, seed):
    """Moves norms and biases away from one and zero, so that a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def write(name, model, tensors):
    model.save_pretrained(HERE / name, safe_serialization=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / name / "golden.safetensors")


def unet_case(name, seed, size, **config):
    torch.manual_seed(seed)
    model = randomize(UNet2DConditionModel(**config), seed)
    batch = 5
    inputs = {
        "sample": normal(seed + 1, batch, config["in_channels"], *size),
        "timesteps": torch.tensor([0.0, 1.0, 500.0, 981.0, 999.0]),
        "encoder_hidden_states": normal(seed + 2, batch, 7, config["cross_attention_dim"]),
    }
    output = model(inputs["sample"], inputs["timesteps"], inputs["encoder_hidden_states"]).sample
    write(name, model, inputs | {"output": output})


def autoencoder_case(name, seed, size, **config):
    torch.manual_seed(seed)
    model = randomize(AutoencoderKL(**config), seed)
    pixels = normal(seed + 1, 2, config["in_channels"], *size).clamp(-1, 1)
    posterior = model.encode(pixels).latent_dist
    noise = normal(seed + 2, *posterior.mean.shape)
    write(
        name,
        model,
        {
            "pixels": pixels,
            "mean": posterior.mean,
            "logvar": posterior.logvar,
            "kl": posterior.kl(),
            "noise": noise,
            "sample": posterior.mean + posterior.std * noise,
            "decoded": model.decode(posterior.mean).sample,
        },
    )


def tiny_autoencoder_case(name, seed, size, **config):
    """In f16 as a torch file: the published TAESD comes in both formats."""
    torch.manual_seed(seed)
    model = randomize(AutoencoderTiny(**config), seed).half()
    model.save_pretrained(HERE / name, safe_serialization=False)
    model = model.float()
    pixels = normal(seed + 1, 2, config["in_channels"], *size).clamp(-1, 1)
    latents = model.encode(pixels).latents
    # Far from zero too, where the decoder squeezes.
    given = 4 * normal(seed + 2, *latents.shape)
    tensors = {"pixels": pixels, "latents": latents, "given": given, "decoded": model.decode(given).sample}
    save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / name / "golden.safetensors")


with torch.no_grad():
    # Stable Diffusion 1: projections by convolution, one number of heads; three stages of two kinds; odd sides.
    unet_case(
        "unet_sd1",
        seed=1,
        size=(6, 10),
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(4, 8, 8),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    # Stable Diffusion 2: linear projections, heads per stage, two layers per block and per transformer.
    unet_case(
        "unet_sd2",
        seed=10,
        size=(8, 8),
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(4, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        norm_num_groups=4,
        norm_eps=1e-6,
        cross_attention_dim=6,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=2,
        use_linear_projection=True,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    # Three stages; the sides at the coarsest stage are odd.
    autoencoder_case(
        "autoencoder",
        seed=20,
        size=(12, 16),
        sample_size=16,
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
    )
    # One stage: nothing is resampled.
    autoencoder_case(
        "autoencoder_one_stage",
        seed=30,
        size=(5, 6),
        sample_size=8,
        in_channels=3,
        out_channels=3,
        latent_channels=2,
        block_out_channels=(8,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        layers_per_block=2,
        norm_num_groups=2,
    )
    # TAESD: stages of different depth in both halves.
    tiny_autoencoder_case(
        "autoencoder_tiny",
        seed=60,
        size=(8, 12),
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        encoder_block_out_channels=(6, 6, 6),
        decoder_block_out_channels=(6, 6, 6),
        num_encoder_blocks=(1, 2, 1),
        num_decoder_blocks=(2, 1, 1),
    )
