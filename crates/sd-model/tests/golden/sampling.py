"""Writes sampling.safetensors beside this script: latents of `pipeline_sd1` under other samplers and rescaled guidance.

Made with torch 2.9.0, diffusers 0.42.1, transformers 5.24.0, safetensors 0.8.0 on a CPU, after `pipeline.py`:
`python sampling.py`.
"""

from pathlib import Path

import diffusers
import torch
from diffusers import StableDiffusionPipeline
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
torch.set_num_threads(1)
pipe = StableDiffusionPipeline.from_pretrained(HERE / "pipeline_sd1", safety_checker=None)
pipe.set_progress_bar_config(disable=True)
noise = load_file(HERE / "pipeline_sd1" / "golden.safetensors")["noise"]
config = pipe.scheduler.config
# The noise of each step: the starting noise of the other sample.
draw = lambda *args, **kwargs: noise.flip(0)
scheduling_euler_ancestral_discrete.randn_tensor = scheduling_lcm.randn_tensor = draw


def run(name, guidance_rescale=0.0, **settings):
    pipe.scheduler = getattr(diffusers, name).from_config(config, **settings)
    return pipe(
        prompt=["a photo of a cat", "two dogs, painted"],
        negative_prompt=["", "blurry"],
        num_inference_steps=3,
        guidance_scale=7.5,
        guidance_rescale=guidance_rescale,
        latents=noise,
        output_type="latent",
    ).images.contiguous()


with torch.no_grad():
    tensors = {f"guidance_rescale {g}": run("DDIMScheduler", g) for g in (0.0, 0.5, 1.0)}
    for name in (
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "LCMScheduler",
    ):
        tensors[name] = run(name, **({"skip_prk_steps": True} if name == "PNDMScheduler" else {}))
    tensors["karras"] = run("DPMSolverMultistepScheduler", use_karras_sigmas=True)
    tensors["trailing"] = run("EulerDiscreteScheduler", timestep_spacing="trailing")
save_file(tensors, HERE / "sampling.safetensors")
