"""The training step that every benchmark times: gradients cleared, a loss, its gradient."""

from repro.measuring.step import Step


def training_step(model, loss_of):
    """Make a step of a model from a function that gives its loss; the step returns the loss's value."""
    return Step(loss_of, tuple(model.parameters())).take


def likelihood_step(flow, x, noise=None):
    """Make a step by the mean negative log-density; `noise` is one probe a row, where the flow estimates its trace."""
    given = {} if noise is None else {"noise": noise[None]}
    return training_step(flow, lambda: -flow.log_prob(x, **given).mean())
