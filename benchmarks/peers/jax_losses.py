"""The workloads' losses in JAX, as functions of weights (in the order of the PyTorch model), rtol and atol."""

import itertools
import math

import diffrax
import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.peers.fields import HyperPlanar

ACTIVATIONS = {"tanh": jnp.tanh, "softplus": jax.nn.softplus}


def likelihood(workload, field, count, *, times, adjoint, by_sample):
    """Mean negative log-density of the batch; `count`, if there is one, is called at every evaluation."""
    x = jnp.asarray(workload.x.cpu().numpy())
    noise = None if workload.noise is None else jnp.asarray(workload.noise.cpu().numpy())
    evaluate = _planar(field) if isinstance(field, HyperPlanar) else _gated(workload.field.activation)

    def log_density(weights, x, noise, rtol, atol):
        def rate(t, state, weights):
            if count is not None:
                jax.debug.callback(count)
            dy, pull = jax.vjp(lambda y: evaluate(weights, t, y), state[0])
            return dy, _trace(pull, dy, noise)

        z, gain = _solve(rate, (x, jnp.zeros(x.shape[:-1])), weights, times, rtol, atol, adjoint)
        return -0.5 * jnp.square(z).sum(-1) - 0.5 * x.shape[-1] * math.log(2 * math.pi) + gain

    if by_sample:
        log_density = jax.vmap(log_density, in_axes=(None, 0, None if noise is None else 0, None, None))
    return lambda weights, rtol, atol: -log_density(weights, x, noise, rtol, atol).mean()


def _solve(rate, state, weights, times, rtol, atol, adjoint):
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),
        diffrax.Dopri5(),
        *times,
        dt0=None,
        y0=state,
        args=weights,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        adjoint=getattr(diffrax, adjoint)(),
    )
    return jax.tree.map(lambda y: y[-1], solution.ys)


def _trace(pull, dy, noise):
    if noise is not None:
        return (pull(noise)[0] * noise).sum(-1)
    units = jnp.eye(dy.shape[-1])
    rows = jax.vmap(lambda unit: pull(jnp.broadcast_to(unit, dy.shape))[0])(units)
    return jnp.einsum("i...i->...", rows)


def _gated(activation):
    def evaluate(weights, t, y):
        for index, (weight, bias, gate, gate_bias, shift) in enumerate(_groups(weights, 5)):
            y = y if index == 0 else ACTIVATIONS[activation](y)
            y = (y @ weight.T + bias) * jax.nn.sigmoid(gate[:, 0] * t + gate_bias) + shift[:, 0] * t
        return y

    return evaluate


def _planar(field):
    ends = list(itertools.accumulate(field.sizes))[:-1]

    def evaluate(weights, t, y):
        in_weight, in_bias, hidden_weight, hidden_bias, out_weight, out_bias = weights
        h = jnp.tanh(hidden_weight @ jnp.tanh(in_weight[:, 0] * t + in_bias) + hidden_bias)
        w, u, gates, b = jnp.split(out_weight @ h + out_bias, ends)
        w, u = w.reshape(field.width, field.dim), (u * jax.nn.sigmoid(gates)).reshape(field.width, field.dim)
        return jnp.tanh(y @ w.T + b) @ u / field.width

    return evaluate


def classification(workload, count, *, adjoint):
    """Mean cross-entropy of the batch."""
    images, labels = jnp.asarray(workload.images.cpu().numpy()), jnp.asarray(workload.labels.cpu().numpy())

    def rate(t, y, weights):
        if count is not None:
            jax.debug.callback(count)
        norm1, conv1, norm2, conv2, norm3 = _groups(weights, 2)
        hidden = _time_conv(t, jax.nn.relu(_group_norm(y, *norm1)), *conv1)
        return _group_norm(_time_conv(t, jax.nn.relu(_group_norm(hidden, *norm2)), *conv2), *norm3)

    def loss(weights, rtol, atol):
        stem, field, head = weights[:10], weights[10:20], weights[20:]
        conv1, norm1, conv2, norm2, conv3 = _groups(stem, 2)
        y = _conv(images, *conv1)
        y = _conv(jax.nn.relu(_group_norm(y, *norm1)), *conv2, stride=2, padding=1)
        y = _conv(jax.nn.relu(_group_norm(y, *norm2)), *conv3, stride=2, padding=1)
        y = _solve(rate, y, field, (0.0, 1.0), rtol, atol, adjoint)
        features = jax.nn.relu(_group_norm(y, *head[:2])).mean((2, 3))
        logits = features @ head[2].T + head[3]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    return loss


def _conv(x, weight, bias, stride=1, padding=0):
    window = [(padding, padding)] * 2
    dimensions = ("NCHW", "OIHW", "NCHW")
    y = lax.conv_general_dilated(x, weight, (stride, stride), window, dimension_numbers=dimensions)
    return y + bias[:, None, None]


def _time_conv(t, x, weight, bias):
    return _conv(jnp.concatenate([jnp.full_like(x[:, :1], t), x], 1), weight, bias, padding=1)


def _group_norm(x, weight, bias, groups=32, epsilon=1e-5):
    grouped = x.reshape(len(x), groups, -1)
    mean, variance = grouped.mean(-1, keepdims=True), grouped.var(-1, keepdims=True)
    normal = ((grouped - mean) * lax.rsqrt(variance + epsilon)).reshape(x.shape)
    return normal * weight[:, None, None] + bias[:, None, None]


def _groups(weights, size):
    """The weights, `size` at a time: those of one layer."""
    return zip(*[iter(weights)] * size, strict=True)
