"""Table 1's recipe: augmentation, order of the data, selection, and rows that depend on the seed alone."""

from dataclasses import replace

import pytest
import torch
from miniature import final, frame
from miniature import run as train
from torch import Generator, nn
from torch.nn import functional as F

from repro.experiment import Context
from repro.ode import solve
from repro.papers.neural_ode import table1_mnist
from repro.papers.neural_ode.claims import TABLE1, as_good_as_resnet
from repro.papers.neural_ode.mnist_images import Images, random_crop, to_float
from repro.papers.neural_ode.table1_mnist import CELLS, EXPERIMENT, Config, build
from repro.per_point import load_correct
from repro.results import COST_METRICS, Row
from repro.runner import Request, run

TINY = {"epochs": 2, "train_limit": 256, "evaluation_limit": 100, "batch": 32}


def context(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return Context(torch.device("cpu"), folder)


def numbers(rows):
    return [row for row in rows if row.metric not in COST_METRICS]


# --- augmentation ----------------------------------------------------------------------------------------------------


def crop_one_by_one(images, padding, stream):
    batch, height, width = images.shape
    offsets = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=stream)[..., 0].tolist()
    cropped = []
    for image, top, left in zip(images, *offsets, strict=True):
        canvas = torch.zeros(height + 2 * padding, width + 2 * padding, dtype=images.dtype)
        canvas[padding : padding + height, padding : padding + width] = image
        cropped.append(canvas[top : top + height, left : left + width])
    return torch.stack(cropped)


@pytest.mark.parametrize(("height", "width", "padding"), [(28, 28, 4), (5, 7, 2), (3, 3, 5)])
def test_random_crop_is_what_one_image_at_a_time_gives(height, width, padding):
    images = torch.randint(0, 256, (50, height, width), dtype=torch.uint8)
    ours = random_crop(images, padding, Generator().manual_seed(3))
    assert torch.equal(ours, crop_one_by_one(images, padding, Generator().manual_seed(3)))
    assert ours.dtype == torch.uint8


def test_random_crop_takes_every_shift_equally_often():
    padding, n = 1, 9000
    image = torch.zeros(n, 3, 3, dtype=torch.uint8)
    image[:, 1, 1] = 1
    place = random_crop(image, padding, Generator().manual_seed(0)).flatten(1).argmax(1)
    counts = torch.bincount(place, minlength=9)
    assert (counts - n / 9).abs().max() < 4 * (n / 9 * 8 / 9) ** 0.5  # four standard errors


def test_no_padding_is_the_identity_and_draws_nothing():
    images, stream = torch.randint(0, 256, (4, 28, 28), dtype=torch.uint8), Generator().manual_seed(0)
    before = stream.get_state()
    assert torch.equal(random_crop(images, 0, stream), images)
    assert torch.equal(stream.get_state(), before)


def test_bytes_become_numbers_from_zero_to_one():
    images = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    assert torch.equal(to_float(images), torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]]))


# --- order, learning rate, selection ---------------------------------------------------------------------------------


class Numbered(Images):
    """Images whose first two pixels tell their number."""

    def __init__(self, n):
        x = torch.zeros(n, 28, 28, dtype=torch.uint8)
        x[:, 0, 0], x[:, 0, 1] = torch.arange(n) // 256, torch.arange(n) % 256
        self.train = self.select = self.test = (x, torch.arange(n) % 10)


class Watcher(nn.Sequential):
    """A classifier that notes which images it saw."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
        self.seen = []

    def forward(self, x):
        self.seen += (x[:, 0, 0, 0] * 255 * 256 + x[:, 0, 0, 1] * 255).round().int().tolist()
        return super().forward(x)


def orders(config, n=300):
    model = Watcher()
    training = table1_mnist.training(config, model, Numbered(n))
    for step in range(training.steps):
        training.update(step)
    return torch.tensor(model.seen).reshape(config.epochs, -1)


def test_an_epoch_is_a_permutation_and_drops_the_rest():
    config = Config(model="mlp", epochs=3, batch=32, crop_padding=0)
    epochs = orders(config)
    assert epochs.shape == (3, 288)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 288
        assert set(epoch.tolist()) <= set(range(300))
    assert not torch.equal(epochs[0], epochs[1])


def test_the_order_depends_on_seed_and_epoch_only():
    config = Config(model="mlp", epochs=3, batch=32, crop_padding=0)
    base = orders(config)
    torch.rand(3)  # another state of the global stream
    assert torch.equal(orders(replace(config, epochs=2, learning_rate=0.5)), base[:2])
    assert torch.equal(orders(replace(config, batch=30))[:, :288], base)
    assert not torch.equal(orders(replace(config, seed=1)), base)
    model = Watcher()
    training = table1_mnist.training(config, model, Numbered(300))
    training.update(9 + 2)  # as after resuming: straight into the second epoch
    assert model.seen == base[1][64:96].tolist()


def test_learning_rate_drops_where_the_public_example_drops_it():
    config = Config(model="mlp", epochs=160, batch=32)
    training = table1_mnist.training(config, Watcher(), Numbered(320))
    rates = [training.learning_rate(10 * epoch) for epoch in range(160)]
    scale = 0.1 * 32 / 128
    for epochs, factor in ((range(60), 1), (range(60, 100), 0.1), (range(100, 140), 0.01), (range(140, 160), 0.001)):
        assert [rates[epoch] for epoch in epochs] == pytest.approx([scale * factor] * len(epochs))
    assert training.learning_rate(599) == pytest.approx(scale)
    assert training.learning_rate(600) == pytest.approx(scale / 10)


def test_the_protocol_decides_on_what_is_selected():
    device = torch.device("cpu")
    ours, public = (Images(device, validation=validation) for validation in (True, False))
    assert (len(ours.train[0]), len(ours.select[0]), len(ours.test[0])) == (50_000, 10_000, 10_000)
    assert (len(public.train[0]), len(public.select[0]), len(public.test[0])) == (60_000, 10_000, 10_000)
    assert torch.equal(public.select[0], public.test[0])
    assert not torch.equal(ours.select[0], ours.test[0])
    for protocol, metric in (("validation", "validation_error"), ("public", "test_curve_error")):
        config = Config(model="mlp", epochs=1, protocol=protocol)
        training = table1_mnist.training(config, Watcher(), Numbered(128))
        assert training.select == metric
        assert metric in {row.metric for row in training.evaluate()}


def test_measured_error_does_not_depend_on_the_batch():
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), Numbered(130).test
    errors, nll = table1_mnist.measure_error(model, *images, batch=17)
    logits = model(to_float(images[0]))
    assert errors == int((logits.argmax(1) != images[1]).sum()) > 0
    assert nll == pytest.approx(F.cross_entropy(logits, images[1]).item(), rel=1e-5)
    assert model.training


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_stream():
    state = torch.get_rng_state()
    one, same, other = (build(Config(model="mlp", seed=seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_a_gradient_method_that_the_solver_does_not_allow_is_refused_at_once():
    with pytest.raises(ValueError, match="gradient must be one of: backprop, adjoint"):
        Config(gradient="magic")
    scipy = replace(Config().solver, method="adams", engine="scipy")
    with pytest.raises(ValueError, match="use adjoint"):
        Config(solver=scipy, gradient="backprop")


# --- whole cells -----------------------------------------------------------------------------------------------------


def test_final_rows_of_an_ode_net(tmp_path):
    config = Config(model="odenet", **TINY | {"epochs": 1, "train_limit": 32, "evaluation_limit": 20})
    where = context(tmp_path)
    rows = list(table1_mnist.measure(config, where))
    final = {row.metric: row for row in rows if row.step is None}
    assert final["parameters"].value == 208_266
    assert final["test_images"].value == 20
    assert final["test_error"].value == 100 * final["test_errors"].value / 20
    assert final["test_error"].unit == "%"
    assert 0 <= final["test_error_tight"].value <= 100
    assert final["value_drift"].value == final["test_error_tight"].value - final["test_error"].value
    assert final["value_drift"].unit == "%"
    assert 0 < final["reconstruction_error_p99"].value <= final["reconstruction_error"].value < 0.1
    assert final["reconstruction_error"].unit == "relative, 20 points"
    correct = load_correct(where.artefacts)
    assert (len(correct), int((~correct).sum())) == (20, final["test_errors"].value)
    assert final["selected_step"].value == 1
    assert final["budget_share"].value == pytest.approx(32 / (160 * 60_000))
    curve = {row.metric for row in rows if row.step == 1}
    clock = {"elapsed", "update_time"}
    assert curve == {"train_nll", "nfe_forward", "nfe_backward", "validation_error", "validation_nll"} | clock
    assert (where.artefacts / "model.safetensors").exists()
    assert len(where.inputs) == 4


def test_the_tight_test_error_is_measured_at_a_tenth_of_the_tolerance(tmp_path):
    config = Config(model="odenet", evaluation_limit=2)
    model, seen = build(config), []
    block = table1_mnist.ode_block_of(model)
    block.register_forward_hook(lambda *_: seen.append((block.solver.rtol, block.solver.atol)))
    images = Images(torch.device("cpu"), evaluation_limit=2)
    list(table1_mnist.final_rows(config, model, images, context(tmp_path)))
    # the test, the reconstruction at the same tolerance, and the tight test
    assert [rtol for rtol, _ in seen] == pytest.approx([1e-3, 1e-3, 1e-4])
    assert [atol for _, atol in seen] == pytest.approx([1e-3, 1e-3, 1e-4])
    assert block.solver == config.solver


def test_the_states_that_enter_the_block_are_reconstructed(tmp_path):
    """By hand: the same solver forward and back from the down-sampled images."""
    config = Config(model="odenet", evaluation_limit=3)
    model, images = build(config), Images(torch.device("cpu"), evaluation_limit=3)
    rows = {row.metric: row for row in table1_mnist.final_rows(config, model, images, context(tmp_path))}
    block = table1_mnist.ode_block_of(model)
    with torch.no_grad():
        states = model[0](to_float(images.test[0]))
        times = torch.tensor([1.0, 0.0])
        back = solve(block.field, block(states), times, config.solver, "backprop").y[-1]
    norms = states.flatten(1).norm(dim=1)
    errors = (states - back).flatten(1).norm(dim=1) / (norms + norms.square().mean().sqrt())
    assert rows["reconstruction_error"].value == pytest.approx(float(errors.max()), rel=1e-3)


def test_correct_images_are_saved_in_the_order_of_the_test_set(tmp_path):
    config = replace(CELLS["mlp"], evaluation_limit=50)
    model, images = build(config), Images(torch.device("cpu"), evaluation_limit=50)
    rows = {row.metric for row in table1_mnist.final_rows(config, model, images, context(tmp_path))}
    assert rows == {"test_images", "test_errors", "test_error", "test_nll"}, "no solve, nothing to converge"
    logits = model(to_float(images.test[0]))
    assert load_correct(context(tmp_path).artefacts).tolist() == (logits.argmax(1) == images.test[1]).tolist()


@pytest.mark.parametrize("cell", ["mlp", "no_block"])
def test_same_seed_same_rows_and_another_seed_others(tmp_path, cell):
    config = replace(CELLS[cell], **TINY | {"train_limit": 64})
    one, same, other = (
        numbers(table1_mnist.measure(replace(config, seed=seed), context(tmp_path / folder)))
        for seed, folder in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert one == same
    losses = [[row.value for row in rows if row.metric == "train_nll"] for rows in (one, other)]
    assert len(losses[0]) == 2
    assert losses[0] != losses[1]


@pytest.mark.parametrize("network", ["rknet", "odenet"])
def test_the_compiled_engine_trains_the_same_network(tmp_path, network):
    limits = TINY | {"epochs": 1, "train_limit": 96, "evaluation_limit": 50}
    curves = []
    for cell in (network, f"{network}_compiled"):
        rows = table1_mnist.measure(replace(CELLS[cell], **limits), context(tmp_path / cell))
        curves.append({row.metric: row.value for row in rows if row.step == 3})
    theirs, ours = curves
    assert ours["nfe_forward"] == theirs["nfe_forward"]
    assert ours["train_nll"] == pytest.approx(theirs["train_nll"], rel=1e-3)
    assert ours["validation_nll"] == pytest.approx(theirs["validation_nll"], rel=1e-2)


def test_an_ode_net_gives_the_same_rows_twice(tmp_path):
    config = replace(CELLS["odenet"], **TINY | {"epochs": 1, "train_limit": 64, "evaluation_limit": 10})
    one, same = (numbers(table1_mnist.measure(config, context(tmp_path / folder))) for folder in "ab")
    assert one == same


def test_a_network_learns(tmp_path):
    config = replace(CELLS["mlp"], epochs=4, train_limit=1280, evaluation_limit=500)
    rows = list(table1_mnist.measure(config, context(tmp_path)))
    final = {row.metric: row.value for row in rows if row.step is None}
    assert final["test_error"] < 20, "chance is 90 %"
    curve = [row.value for row in rows if row.metric == "train_nll"]
    assert curve[-1] < curve[0]


def test_evaluate_repeats_the_final_rows_of_the_selected_weights(tmp_path):
    config = replace(CELLS["mlp"], **TINY)
    request = Request(name="neural_ode/table1_mnist", experiment=EXPERIMENT, cell="mlp", tier="smoke", config=config,
                      device=torch.device("cpu"))  # fmt: skip
    outcome = run(request, lambda *_: None)
    from repro.checkpoint import load_tensors
    from repro.results import read_rows

    tensors, _ = load_tensors(outcome.folder / "model.safetensors")
    recorded = read_rows(outcome.folder / "rows.csv")
    again = list(table1_mnist.evaluate(config, tensors, context(tmp_path)))
    assert {row.metric for row in again} == {"test_images", "test_errors", "test_error", "test_nll"}
    for row in again:
        assert Row(row.metric, float(row.value), row.unit) in recorded


# --- negative control ------------------------------------------------------------------------------------------------


class ShuffledImages(Images):
    """MNIST whose training labels are permuted: nothing can be learnt from it."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        images, labels = self.train
        self.train = images, labels[torch.randperm(len(labels), generator=Generator().manual_seed(0))]


def test_a_network_trained_on_shuffled_labels_is_not_as_good_as_one_trained_on_true_ones(tmp_path, monkeypatch):
    """The claim's rule on two real trainings, of the perceptron in place of both networks, which takes seconds."""
    settings = {"train_limit": 1_280, "evaluation_limit": 500, "epochs": 6, "batch": 32}
    _, _, rows = train(table1_mnist, "mlp", tmp_path / "true", **settings)
    monkeypatch.setattr(table1_mnist, "Images", ShuffledImages)
    _, _, shuffled = train(table1_mnist, "mlp", tmp_path / "shuffled", **settings)
    assert final(shuffled)["test_error"] - final(rows)["test_error"] > 40
    networks = {"resnet": rows, "odenet": shuffled}
    lines = [
        (TABLE1, cell, *map(vars(row).get, ("metric", "value", "step"))) for cell in networks for row in networks[cell]
    ]
    assert as_good_as_resnet(frame(*lines)).verdict == "not reproduced"
