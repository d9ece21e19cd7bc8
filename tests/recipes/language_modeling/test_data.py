"""Texts, their words, and the windows they are read in."""

import hashlib
import platform
import re
from pathlib import Path

import pytest
import torch

from lightning_adabelief.recipes.language_modeling import PennTreebankDataModule, TextDataModule
from lightning_adabelief.recipes.language_modeling.texts import read_files, read_pydoc_topics
from lightning_adabelief.recipes.language_modeling.vocabulary import Vocabulary
from lightning_adabelief.recipes.language_modeling.windows import IGNORED, Windows, WindowSampler
from tests.recipes.language_modeling.texts import write_fable, write_penn_treebank


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def set_up(**options):
    data = TextDataModule(**options)
    data.setup("fit")
    return data


def test_no_paragraph_of_pythons_text_is_in_two_parts():
    text = read_pydoc_topics()
    parts = [{" ".join(p.split()) for p in re.split(r"\n\s*\n", part)} for part in (text.train, text.val, text.test)]
    for i, part in enumerate(parts):
        others = set.union(*(other for j, other in enumerate(parts) if j != i))
        assert len([paragraph for paragraph in part & others if paragraph]) <= 0.005 * len(part)
    assert f"CPython {platform.python_version()}, SHA-256 " in str(text)
    sizes = [len(part) for part in (text.train, text.val, text.test)]
    assert 0.78 < sizes[0] / sum(sizes) < 0.82 and 0.08 < sizes[1] / sum(sizes) < 0.12


def test_the_vocabulary_is_that_of_the_training_part_alone(here):
    names = ["train.txt", "val.txt", "test.txt"]
    for name, text in zip(names, ("a a b b c\n", "a d d d\n", "e e e a\n"), strict=True):
        Path(name).write_text(text)
    data = set_up(path=names, batch_size=1, eval_batch_size=1)
    assert set(data.vocabulary.words) == {"<unk>", "<eos>", "a", "b"}
    assert data.vocabulary.decode(data.words["test"].tolist()) == "<unk> <unk> <unk> a\n"


def test_one_file_is_split_80_10_10_at_ends_of_lines_and_nothing_is_lost(here):
    whole = write_fable("fable.txt")
    text = read_files(["fable.txt"])
    assert text.train + text.val + text.test == whole
    assert all(part.endswith("\n") for part in (text.train, text.val, text.test))
    assert len(text.train) / len(whole) == pytest.approx(0.8, abs=0.01)
    assert text.sha256 == hashlib.sha256(Path("fable.txt").read_bytes()).hexdigest()


def test_a_text_of_one_long_line_is_split_between_words(here):
    Path("line.txt").write_text("word " * 1000)
    text = read_files(["line.txt"])
    assert all(set(part.split()) == {"word"} for part in (text.train, text.val, text.test))


def test_a_word_of_the_text_is_a_target_once_and_its_input_is_the_word_before():
    words = torch.arange(2, 25)
    windows = Windows(words, columns=4, fill=1)
    columns = [(windows.inputs[:, i].tolist(), windows.targets[:, i].tolist()) for i in range(4)]
    assert [target for _, targets in columns for target in targets if target != IGNORED] == words.tolist()
    for inputs, targets in columns:
        for before, target in zip(inputs, targets, strict=True):
            assert target == IGNORED or before == (target - 1 if target > 2 else 1)


@pytest.mark.parametrize("is_random", [False, True])
@pytest.mark.parametrize(("height", "length"), [(1000, 35), (1000, 70), (35, 35), (36, 35), (3, 20), (20_000, 10)])
def test_windows_cover_the_text_in_order_and_their_number_is_the_samplers_length(height, length, is_random):
    torch.manual_seed(0)
    sampler = WindowSampler(height, length, is_random)
    for _ in range(3):
        windows = list(sampler)
        assert len(windows) == len(sampler)
        assert windows[0].start == 0 and windows[-1].stop == height
        assert all(a.stop == b.start for a, b in zip(windows, windows[1:], strict=False))
        assert all(window.start < window.stop for window in windows)


def test_random_windows_are_about_bptt_long_some_half_of_it_and_differ_from_epoch_to_epoch():
    torch.manual_seed(0)
    sampler = WindowSampler(200_000, 70, is_random=True)
    first, second = list(sampler), list(sampler)
    assert first != second
    lengths = torch.tensor([window.stop - window.start for window in first]).float()
    halved = lengths < 50
    assert 0.03 < halved.float().mean() < 0.07
    assert lengths[~halved].mean() == pytest.approx(70, abs=1) and lengths[~halved].std() == pytest.approx(5, abs=0.5)


def test_the_penn_treebank_has_ten_thousand_words_under_either_name_of_its_files(here):
    for names in PennTreebankDataModule.FILES:
        write_penn_treebank(names[0], names=names)
        data = PennTreebankDataModule(names[0])
        data.setup("fit")
        assert len(data.vocabulary) == 10_000
        assert data.vocabulary.encode("<unk> N word9\n").tolist()[0] == data.vocabulary.unknown
        assert not (data.words["test"] == data.vocabulary.unknown).any()


def test_of_missing_files_it_is_said_which_and_where_from(here):
    write_penn_treebank("data/penn", words=100)
    Path("data/penn/ptb.valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no ptb.valid.txt in data/penn/.*https://.*Put them into data/penn/"):
        PennTreebankDataModule().setup("fit")
    with pytest.raises(FileNotFoundError, match="no ptb.train.txt, no ptb.valid.txt, no ptb.test.txt in nowhere/"):
        PennTreebankDataModule("nowhere").setup("fit")


def test_a_text_that_is_no_text_is_named(here):
    Path("folder").mkdir()
    Path("empty.txt").write_text(" \n")
    Path("latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    for path, error, message in (
        ("absent.txt", FileNotFoundError, "There is no file absent.txt"),
        ("folder", ValueError, "folder is a folder"),
        ("empty.txt", ValueError, "empty.txt has no words in it"),
        ("latin.txt", ValueError, "latin.txt is not UTF-8: .* at byte 3"),
    ):
        with pytest.raises(error, match=message):
            TextDataModule(path).setup("fit")


def test_too_little_text_for_the_columns_is_named(here):
    Path("few.txt").write_text("one two three one two three one two three four\n" * 3)
    with pytest.raises(ValueError, match="The text to train has .* words, fewer than batch_size 500"):
        set_up(path="few.txt", batch_size=500)
    with pytest.raises(ValueError, match="The text to val has 33 words, fewer than eval_batch_size 34"):
        set_up(path=["few.txt"] * 3, eval_batch_size=34)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ["a", "b"]}, "Invalid path: 2 files"),
        ({"path": []}, "Invalid path: 0 files"),
        ({"batch_size": 0}, "Invalid batch_size: 0"),
        ({"bptt": 0}, "Invalid bptt: 0"),
        ({"bptt": 9, "random_bptt": True}, "Invalid bptt: 9 with random_bptt"),
        ({"length": 0}, "Invalid length: 0"),
        ({"temperature": -1.0}, "Invalid temperature: -1.0"),
        ({"max_vocabulary": 2}, "Invalid max_vocabulary: 2"),
        ({"num_workers": -1}, "Invalid num_workers: -1"),
    ],
    ids=str,
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TextDataModule(**options)


def test_windows_ends_of_lines_and_a_byte_order_mark_are_no_words(here):
    Path("dos.txt").write_bytes("\ufeffone two\r\none two\r\n".encode())
    text = read_files(["dos.txt"] * 3)
    assert text.train == "one two\none two\n"


def test_words_written_again_have_blanks_where_they_are_likely():
    vocabulary = Vocabulary.from_text('say (it), "now": a.b\nagain', "words")
    assert vocabulary.decode(vocabulary.encode("say (it), now: a.\nagain").tolist()) == "say (it), now: a.\nagain"


def test_of_equally_frequent_words_the_alphabet_decides():
    one, other = (Vocabulary.from_text(text, "words", max_size=4).words for text in ("c b a", "a c b"))
    assert one == other == ["<unk>", "<eos>", "a", "b"]
