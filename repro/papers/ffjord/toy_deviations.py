"""Where FFJORD's text, its public code and this suite differ on toy densities."""

from repro.experiment import Deviation

TOYS = (
    Deviation(
        subject="time in the field's layers",
        published="concatenated to every layer's input, in all experiments (Section 4)",
        released="concatsquash: gate and shift by time (train_toy.py's default and the README's command)",
        ours="concatsquash; cell `8gaussians_concat` as in the text",
    ),
    Deviation(
        subject="trace in training",
        published="Hutchinson's estimator, noise drawn once per solve (Section 3)",
        released="exact (train_toy.py)",
        ours="exact, in closed form; `_hutchinson` cells as in the text",
    ),
    Deviation(
        subject="gradient in training",
        published="adjoint (eq. 6)",
        released="torchdiffeq's adjoint",
        ours="adjoint in the tier `paper`; in `small` that of the steps taken (`checkpoint`), by the compiled engine",
    ),
    Deviation(
        subject="end time",
        published="not stated",
        released="a parameter (train_T), rebuilt by torch.tensor at every call: it gets no gradient and stays at 0.5",
        ours="0.5, a constant",
    ),
    Deviation(
        subject="selection",
        published="not stated",
        released="smallest loss on one fresh batch of 1,000 every 100 iterations",
        ours="smallest loss on 2,000 fixed points every 100 iterations",
    ),
    Deviation(
        subject="rings",
        published="not used",
        released="fixed angles: 25 points a ring in a batch of 100, a mixture of 100 blobs; 250 in a batch of 1,000",
        ours="random angles; cell `rings_released` trains on the blobs, and is tested on random angles like the others",
    ),
    Deviation(
        subject="Glow",
        published="100 layers (Figure 2)",
        released="depth 10, scale sigmoid(s + 2), full matrices, Adamax 1e-4, 100,001 iterations",
        ours="100 couplings of zuko with LU-factored maps, Adam 1e-3; 10,000 iterations in the tier `small`; "
        "scales between 1/1000 and 1000, or in cell `2spirals_glow_bounded`, where two seeds diverged, 1/2 and 2",
    ),
)
