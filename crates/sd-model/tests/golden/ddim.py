"""Writes ddim.json (settings) and ddim.safetensors (values) beside this script.

Made with torch 2.9.0, diffusers 0.42.1, safetensors 0.8.0 on a CPU: `python ddim.py`.
"""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file

HERE = Path(__file__).parent
SHAPE = (2, 4, 3, 3)
BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}

CASES = [
    # Stable Diffusion 1.5 and 2.1-base.
    (BASE | {"prediction_type": "epsilon", "set_alpha_to_one": False, "steps_offset": 1}, 10, 0.0),
    # Stable Diffusion 2.1 at 768 pixels.
    (BASE | {"prediction_type": "v_prediction", "set_alpha_to_one": False, "steps_offset": 1}, 7, 0.0),
    (BASE | {"prediction_type": "sample", "timestep_spacing": "linspace"}, 6, 0.0),
    (BASE | {"prediction_type": "epsilon", "timestep_spacing": "trailing"}, 8, 0.7),
    (
        BASE
        | {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
        5,
        0.0,
    ),
    ({"beta_schedule": "linear", "clip_sample": True, "prediction_type": "epsilon"}, 10, 1.0),
    ({"beta_schedule": "squaredcos_cap_v2", "clip_sample": False, "num_train_timesteps": 200}, 9, 0.0),
]

tensors, cases = {}, []
for index, (config, num_inference_steps, eta) in enumerate(CASES):
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(num_inference_steps)
    generator = torch.Generator().manual_seed(index)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    sample = normal(SHAPE)
    outputs, noise = normal(num_inference_steps, *SHAPE), normal(num_inference_steps, *SHAPE)
    steps, current = [], sample
    for step, timestep in enumerate(scheduler.timesteps):
        result = scheduler.step(outputs[step], timestep, current, eta=eta, variance_noise=noise[step])
        current = result.prev_sample
        steps.append(current)
    mixed = torch.tensor([3, scheduler.config.num_train_timesteps - 1])
    tensors |= {
        f"{index}.sample": sample,
        f"{index}.outputs": outputs,
        f"{index}.noise": noise,
        f"{index}.steps": torch.stack(steps),
        f"{index}.alphas_cumprod": scheduler.alphas_cumprod,
        f"{index}.noisy": scheduler.add_noise(sample, noise[0], mixed),
        f"{index}.velocity": scheduler.get_velocity(sample, noise[0], mixed),
    }
    timesteps = scheduler.timesteps.tolist()
    cases.append(
        {"config": config, "num_inference_steps": num_inference_steps, "eta": eta, "timesteps": timesteps}
    )

spacings = []
for spacing in ("leading", "trailing", "linspace"):
    for total in (1000, 999, 200):
        for num_inference_steps in (1, 2, 3, 7, 20, 30, 50, 99, 150):
            scheduler = DDIMScheduler(num_train_timesteps=total, timestep_spacing=spacing)
            scheduler.set_timesteps(num_inference_steps)
            config = {"num_train_timesteps": total, "timestep_spacing": spacing}
            spacings.append(
                {
                    "config": config,
                    "num_inference_steps": num_inference_steps,
                    # diffusers' `arange` has one entry too many, -1, for 999 in 30 trailing steps.
                    "timesteps": scheduler.timesteps.tolist()[:num_inference_steps],
                }
            )

save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / "ddim.safetensors")
(HERE / "ddim.json").write_text(json.dumps({"cases": cases, "spacings": spacings}, separators=(",", ":")) + "\n")
