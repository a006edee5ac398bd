"""The names of the suites; each is a module with `run(settings) -> tables` whose docstring introduces the tables."""

SUITES = {
    "steps": "the training step, compared with diffusers, denoising-diffusion-pytorch and azula",
    "inference": "the forward pass, compared with the same projects",
    "trainer": "Lightning's training loop against the bare step",
    "sampling": "samplers against bare forward passes, compared with diffusers and azula",
    "quality": "inception score and Fréchet distance of checkpoints against network evaluations",
    "race": "quality after seconds of training, compared with four projects (hours; continues where it was stopped)",
    "evaluation": "metrics against the feature network; the Fréchet distance of torch-fidelity and torchmetrics",
    "data": "images per second and core, compared with torchvision",
    "trace": "exact and sliced trace of the Jacobian",
    "processes": "DDP on 1, 2 and 4 processes",
    "memory": "peak memory of training, compared with diffusers",
    "startup": "from the command to the first step",
    "roofline": "floating-point operations per second against the peak of the device",
}
USUAL = tuple(name for name in SUITES if name != "race")
ON_GPU = ("steps", "inference", "sampling", "trace", "memory", "roofline")
