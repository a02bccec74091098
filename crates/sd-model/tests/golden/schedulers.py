"""Writes schedulers.json (settings) and schedulers.safetensors (values) beside this script.

Made with torch 2.9.0, diffusers 0.42.1, safetensors 0.8.0 on a CPU: `python schedulers.py`.
The network is a fixed function of its input and the timestep, so that every step builds on the one before.
"""

import json
from pathlib import Path

import diffusers
import torch
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm
from safetensors.torch import save_file

HERE = Path(__file__).parent
SHAPE = (2, 2, 2, 2)
SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}


def network(sample, timestep):
    return 0.4 * sample + 0.2 * sample.flip(-1) - 0.0003 * float(timestep)


def cases():
    """Class, settings, steps. Fields that a class does not know are left out before it is built."""
    for name in [
        "DDIMScheduler",
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    ]:
        # As `from_config` on the files of Stable Diffusion 1.5 and 2.1-base, which do not name the spacing.
        yield name, SD | {"steps_offset": 1, "prediction_type": "epsilon"}, 7
        # Stable Diffusion 2.1.
        yield name, SD | {"steps_offset": 1, "prediction_type": "v_prediction"}, 20
        for spacing in ["leading", "trailing", "linspace"]:
            yield name, SD | {"timestep_spacing": spacing, "steps_offset": 1, "prediction_type": "v_prediction"}, 6
        yield name, {"beta_schedule": "linear", "clip_sample": False, "skip_prk_steps": True}, 5
        cosine = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100, "timestep_spacing": "leading"}
        yield name, cosine | {"clip_sample": False, "skip_prk_steps": True}, 4
        if name != "PNDMScheduler":
            zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
            yield name, SD | zero | {"prediction_type": "v_prediction"}, 5
        if name not in ("PNDMScheduler", "EulerAncestralDiscreteScheduler"):
            yield name, SD | {"prediction_type": "sample"}, 4
        yield name, SD, 2
        yield name, SD, 1
    for name in ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]:
        yield name, SD | {"use_karras_sigmas": True}, 8
        yield name, SD | {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, 16
        yield name, SD | {"final_sigmas_type": "sigma_min", "timestep_spacing": "leading"}, 6
    dpm = "DPMSolverMultistepScheduler"
    yield dpm, SD | {"final_sigmas_type": "sigma_min", "lower_order_final": False}, 6
    yield dpm, SD | {"final_sigmas_type": "sigma_min", "euler_at_final": True}, 16
    yield dpm, SD | {"solver_order": 1}, 5
    yield dpm, {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100, "use_karras_sigmas": True}, 6
    for steps in (1, 4, 7, 50):
        yield "LCMScheduler", SD | {"prediction_type": "epsilon"}, steps
    yield "LCMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, 4
    yield "LCMScheduler", {"prediction_type": "sample", "original_inference_steps": 30, "timestep_scaling": 0.02}, 4
    yield "LCMScheduler", {"clip_sample": True, "clip_sample_range": 0.5}, 3


tensors, settings = {}, []
for index, (name, config, num_inference_steps) in enumerate(cases()):
    scheduler_class = getattr(diffusers, name)
    scheduler = scheduler_class.from_config(config)
    scheduler.set_timesteps(num_inference_steps)
    generator = torch.Generator().manual_seed(index)
    start = torch.randn(SHAPE, generator=generator)
    is_random = name in ("EulerAncestralDiscreteScheduler", "LCMScheduler")
    noise = torch.randn(len(scheduler.timesteps), *SHAPE, generator=generator)
    drawn = iter(noise)
    draw = lambda *args, **kwargs: next(drawn)
    scheduling_euler_ancestral_discrete.randn_tensor = scheduling_lcm.randn_tensor = draw
    sample, steps, inputs = start * scheduler.init_noise_sigma, [], []
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(network(scaled, timestep), timestep, sample).prev_sample
        inputs.append(scaled)
        steps.append(sample)
    tensors |= {f"{index}.start": start, f"{index}.inputs": torch.stack(inputs), f"{index}.steps": torch.stack(steps)}
    if is_random:
        tensors[f"{index}.noise"] = noise
    settings.append(
        {
            "class": name,
            "config": config,
            "num_inference_steps": num_inference_steps,
            "timesteps": [float(t) for t in scheduler.timesteps],
            "init_noise_sigma": float(scheduler.init_noise_sigma),
            "sigmas": scheduler.sigmas.tolist() if hasattr(scheduler, "sigmas") else None,
        }
    )

save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / "schedulers.safetensors")
(HERE / "schedulers.json").write_text(json.dumps(settings, separators=(",", ":")) + "\n")
