"""BeliefMonitor on optimizers that are no AdaBelief, and in wrappers."""

from collections import OrderedDict

import pytest
import timm.optim
import torch

from lightning_adabelief import AdaBelief, BeliefMonitor, beliefs
from lightning_adabelief.beliefs.reading import find_optimizers
from lightning_adabelief.optim.migrate import estimate_exp_avg_var
from tests.callbacks.belief_monitor.conftest import Net

LIKE_ADAM = {
    "RAdam": lambda params: torch.optim.RAdam(params, lr=1e-2, weight_decay=0.1),
    "NAdam": lambda params: torch.optim.NAdam(params, lr=1e-2, decoupled_weight_decay=True, weight_decay=0.1),
    "NAdamW": lambda params: timm.optim.NAdamW(params, lr=1e-2),
    "Lamb": lambda params: timm.optim.Lamb(params, lr=1e-2, weight_decay=0.1),
}
WITHOUT_SECOND_MOMENT = {
    "SGD": lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9, weight_decay=0.1, nesterov=True),
    "SGD-maximize": lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9, maximize=True),
    "SGD-plain": lambda params: torch.optim.SGD(params, lr=1e-2),
    "Lion": lambda params: timm.optim.Lion(params, lr=1e-3, weight_decay=0.1),
    "Adagrad": lambda params: torch.optim.Adagrad(params, lr=1e-2),
    "Rprop": lambda params: torch.optim.Rprop(params, lr=1e-3),
}


class Recording(Net):
    """Keeps the weights and the momenta from before its last step."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def configure_optimizers(self):
        return self.make(self.parameters())

    def on_train_batch_start(self, batch, batch_idx):
        self.before = self.head.weight.detach().clone()
        state = self.optimizers().optimizer.state.get(self.head.weight, {})
        momentum = state.get("exp_avg", state.get("momentum_buffer"))
        self.momentum = None if momentum is None else momentum.clone()


def fit_and_read(fit, csv_rows, module):
    fit(module, BeliefMonitor(include="head.weight", every_n_steps=12))
    return {tag.split("/")[1]: values[11] for tag, values in csv_rows().items() if tag.endswith("head.weight")}


def check_update(rows, module):
    update, weight = module.before - module.head.weight.detach(), module.head.weight.detach()
    assert update.norm() > 0
    assert rows["update_norm"] == pytest.approx(update.norm().item(), rel=1e-4)
    assert rows["update_to_weight"] == pytest.approx((update.norm() / weight.norm()).item(), rel=1e-4)
    assert rows["grad_norm"] == pytest.approx(module.head.weight.grad.norm().item(), rel=1e-4)


def check_cosine(rows, module, sign=1):
    grad = sign * module.head.weight.grad.flatten()
    cosine = torch.nn.functional.cosine_similarity(grad, module.momentum.flatten(), dim=0).item()
    assert rows["grad_momentum_cosine"] == pytest.approx(cosine, rel=1e-4)


@pytest.mark.parametrize("make", LIKE_ADAM.values(), ids=LIKE_ADAM)
def test_optimizers_with_adams_averages_are_read_like_adam(fit, csv_rows, make):
    module = Recording(make)
    rows = fit_and_read(fit, csv_rows, module)
    optimizer = module.optimizers().optimizer
    state, group = optimizer.state[module.head.weight], optimizer.param_groups[0]
    averages = state["exp_avg"], state["exp_avg_sq"]
    s = estimate_exp_avg_var(*averages, 12, group["betas"], "updated") / (1 - group["betas"][1] ** 12)
    assert rows["s_t"] == pytest.approx(s.mean().item(), rel=1e-4)
    assert rows["step_gain_over_adam"] >= 1
    check_update(rows, module)
    check_cosine(rows, module)


def test_the_effective_step_size_of_radam_is_rectified(fit, csv_rows):
    module = Recording(lambda params: torch.optim.RAdam(params, lr=1e-2, eps=1e-3))
    rows = fit_and_read(fit, csv_rows, module)
    state = module.optimizers().optimizer.state[module.head.weight]
    update = (module.before - module.head.weight).detach()
    step_size = update / (state["exp_avg"] / (1 - 0.9**12))
    assert rows["effective_step_size"] == pytest.approx(step_size.median().item(), rel=1e-3)


@pytest.mark.parametrize("name", WITHOUT_SECOND_MOMENT)
def test_any_other_optimizer_has_norms_and_a_cosine_where_there_is_a_momentum(fit, csv_rows, name):
    module = Recording(WITHOUT_SECOND_MOMENT[name])
    rows = fit_and_read(fit, csv_rows, module)
    expected = {"grad_norm", "update_norm", "update_to_weight"}
    if module.momentum is not None:
        expected.add("grad_momentum_cosine")
        check_cosine(rows, module, sign=-1 if name == "SGD-maximize" else 1)
    assert rows.keys() == expected
    check_update(rows, module)
    assert any(tag.startswith("belief/lr/") for tag in csv_rows())


def test_an_optimizer_that_evaluates_its_closure_several_times_is_measured_once_a_step(fit, csv_rows):
    fit(Recording(lambda params: torch.optim.LBFGS(params, lr=0.1, max_iter=3)), BeliefMonitor(1), batches=2)
    assert csv_rows()["belief/update_norm/model"][0] > 0


def test_the_closing_table_of_an_optimizer_without_second_moment_has_its_update(fit, capsys):
    fit(Recording(WITHOUT_SECOND_MOMENT["SGD"]), BeliefMonitor(1))
    out = capsys.readouterr().out
    assert "to weight" in out and "cosine" in out and "step size" not in out


def test_the_closing_table_of_adabelief_keeps_names_on_one_line(fit, capsys):
    fit(Net(), BeliefMonitor(1))
    out = capsys.readouterr().out
    assert "encoder.weight" in out and "step size" in out and "to weight" not in out


def test_statistics_that_an_optimizer_does_not_tell_are_warned_of_once(fit):
    with pytest.warns(UserWarning, match="SGD does not tell s_t. It has: update_to_weight, grad_norm") as warned:
        fit(Recording(WITHOUT_SECOND_MOMENT["SGD"]), BeliefMonitor(1, statistics="s_t"))
    assert sum("does not tell" in str(warning.message) for warning in warned) == 1


class Holder(torch.optim.Optimizer):
    """A wrapper of several optimizers, in a list, as users write them."""

    def __init__(self, *optimizers):
        self.parts = list(optimizers)
        self.param_groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.defaults, self.state = {}, {}

    def step(self, closure=None):
        loss = closure() if closure else None
        for optimizer in self.parts:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none=True):
        for optimizer in self.parts:
            optimizer.zero_grad(set_to_none)


class Deaf(torch.optim.Optimizer):
    """Has no hooks, for it does without torch's constructor."""

    def __init__(self, params):
        self.param_groups, self.defaults, self.state = [{"params": list(params), "lr": 0.1}], {}, {}

    def step(self, closure=None):
        return closure()

    def zero_grad(self, set_to_none=True):
        pass


class Mute(Deaf):
    """Has hooks and never calls them."""

    def __init__(self, params):
        super().__init__(params)
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()


def test_an_optimizer_in_a_lookahead_is_found_beside_another(fit, csv_rows):
    class Wrapped(Net):
        def configure_optimizers(self):
            self.automatic_optimization = False
            inner = AdaBelief(self.encoder.parameters())
            return timm.optim.Lookahead(inner), torch.optim.Adam(self.head.parameters())

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            for optimizer in self.optimizers():
                optimizer.step()

    fit(Wrapped(), BeliefMonitor(1, "*"))
    assert {"belief/s_t/AdaBelief", "belief/s_t/Adam", "belief/s_t/encoder.weight"} <= csv_rows().keys()


def test_optimizers_in_a_list_that_a_wrapper_holds_are_all_found(fit, csv_rows):
    class Wrapped(Net):
        def configure_optimizers(self):
            return Holder(AdaBelief(self.encoder.parameters()), torch.optim.SGD(self.head.parameters(), lr=0.1))

    fit(Wrapped(), BeliefMonitor(1, "*"))
    assert {"belief/s_t/encoder.weight", "belief/update_norm/head.weight"} <= csv_rows().keys()
    assert "belief/s_t/head.weight" not in csv_rows()


def test_an_optimizer_that_holds_a_helper_for_other_parameters_is_itself():
    outer = torch.optim.SGD([torch.ones(2)], lr=0.1)
    outer.helper = torch.optim.SGD([torch.ones(2)], lr=0.1)
    assert find_optimizers(outer) == [outer]


@pytest.mark.parametrize("kind", [Deaf, Mute])
def test_an_optimizer_whose_steps_cannot_be_seen_is_named_once(fit, kind):
    class Unseen(Net):
        def configure_optimizers(self):
            return kind(self.parameters())

    with pytest.warns(UserWarning, match=f"steps of {kind.__name__}") as warned:
        fit(Unseen(), BeliefMonitor(1))
    assert sum("BeliefMonitor" in str(warning.message) for warning in warned) == 1


def test_a_wrapped_optimizer_is_measured_outside_of_a_trainer_too():
    model = torch.nn.Linear(3, 1)
    optimizer = timm.optim.Lookahead(AdaBelief(model.parameters()))
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert "s_t" in beliefs.measure(optimizer, model).layers["weight"]


def test_no_warning_is_given_of_what_can_be_read(fit):
    fit(Recording(WITHOUT_SECOND_MOMENT["SGD"]), BeliefMonitor(1))  # warnings are errors in tests
