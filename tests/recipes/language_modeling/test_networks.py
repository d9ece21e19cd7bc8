"""The AWD-LSTM."""

import pytest
import torch
from torch import nn

from lightning_adabelief import AdaBelief, beliefs
from lightning_adabelief.optim.names import plain_name
from lightning_adabelief.recipes.language_modeling import AWDLSTM
from lightning_adabelief.recipes.language_modeling.networks import LockedDropout

NO_DROPOUT = dict.fromkeys(("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout"), 0.0)


def make(vocabulary_size=50, embedding_size=8, hidden_size=12, num_layers=2, **options):
    torch.manual_seed(0)
    return AWDLSTM(vocabulary_size, embedding_size, hidden_size, num_layers, **options)


def test_two_windows_with_the_state_between_them_are_one_long_window():
    network = make().eval()
    words = torch.randint(50, (12, 3))
    whole = network(words)
    first = network(words[:5])
    second = network(words[5:], first.state)
    torch.testing.assert_close(torch.cat([first.logits, second.logits]), whole.logits)
    torch.testing.assert_close(second.state, whole.state)


def test_without_dropout_it_is_torchs_lstm_between_an_embedding_and_a_linear_layer():
    network = make(num_layers=1, **NO_DROPOUT, weight_dropout=0.5).eval()
    plain = nn.LSTM(8, 8)
    weights = network.lstms[0].state_dict()
    plain.load_state_dict({plain_name(name): weight for name, weight in weights.items()})
    words = torch.randint(50, (6, 2))
    expected = network.decoder(plain(network.embedding(words))[0])
    torch.testing.assert_close(network(words).logits, expected)


def test_tied_weights_are_one_parameter_and_the_last_layer_has_the_embeddings_size():
    tied, untied = make(), make(tie_weights=False)
    assert tied.decoder.weight is tied.embedding.weight
    assert tied.lstms[-1].hidden_size == 8 and untied.lstms[-1].hidden_size == 12
    assert tied(torch.zeros(4, 1, dtype=torch.long)).logits.shape == (4, 1, 50)
    assert untied(torch.zeros(4, 1, dtype=torch.long)).logits.shape == (4, 1, 50)


def test_weight_dropout_drops_recurrent_weights_in_training_alone_and_the_same_throughout_a_window():
    network = make(num_layers=1, **NO_DROPOUT, weight_dropout=0.5)
    words = torch.randint(50, (6, 2))
    first, second = network(words).logits, network(words).logits
    assert not torch.equal(first, second)
    torch.testing.assert_close(first[0], second[0])  # the state before the first word is 0, whatever is dropped
    # A dropped weight has no gradient, and the others have twice as much.
    network(words).logits.square().sum().backward()
    grad = network.lstms[0].parametrizations.weight_hh_l0.original.grad
    assert 0.4 < (grad == 0).float().mean() < 0.6
    network.eval()
    assert torch.equal(network(words).logits, network(words).logits)


def test_locked_dropout_drops_the_same_units_at_every_place_and_keeps_the_mean():
    dropout = LockedDropout(0.25)
    ones = torch.ones(7, 100, 50)
    dropped = dropout(ones)
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(dropout.eval()(ones), ones)


def test_embedding_dropout_drops_a_word_wherever_it_stands():
    network = make(num_layers=1, embedding_dropout=0.5)
    words = torch.arange(50).repeat(4, 1)
    vectors = network._embed(words)
    is_dropped = (vectors == 0).all(dim=2)
    assert torch.equal(is_dropped, is_dropped[:1].expand_as(is_dropped))
    assert 0.2 < is_dropped.float().mean() < 0.8
    kept = vectors[~is_dropped]
    torch.testing.assert_close(kept, 2 * network.embedding(words)[~is_dropped])


@pytest.mark.parametrize("options", [{"hidden_size": 0}, {"num_layers": 0}, {"vocabulary_size": 0}], ids=str)
def test_a_size_of_zero_is_named(options):
    with pytest.raises(ValueError, match="Invalid {}: 0. Give 1 or more".format(*options)):
        AWDLSTM(**options)


@pytest.mark.parametrize("name", [*NO_DROPOUT, "weight_dropout"])
def test_a_dropout_of_one_is_named(name):
    with pytest.raises(ValueError, match=f"Invalid {name}: 1.0. Give a probability"):
        AWDLSTM(**{name: 1.0})


def test_another_vocabulary_than_the_networks_is_named():
    with pytest.raises(ValueError, match="vocabulary_size is 50 and the data's is 60"):
        make().complete(60)


def test_a_weight_behind_weight_dropout_is_measured_under_its_own_name():
    network = make(num_layers=1)
    optimizer = AdaBelief(network.named_parameters())
    network(torch.randint(50, (6, 2))).logits.square().mean().backward()
    optimizer.step()
    layers = beliefs.measure(optimizer, network).layers
    assert set(layers) == {
        "embedding.weight",
        "lstms.0.weight_ih_l0",
        "lstms.0.weight_hh_l0",
        "lstms.0.bias_ih_l0",
        "lstms.0.bias_hh_l0",
        "decoder.bias",
    }
    weight = network.lstms[0].parametrizations.weight_hh_l0.original
    assert layers["lstms.0.weight_hh_l0"]["grad_norm"] == pytest.approx(weight.grad.norm().item(), rel=1e-5)
    assert layers["lstms.0.weight_hh_l0"]["weight_norm"] == pytest.approx(weight.norm().item(), rel=1e-5)
