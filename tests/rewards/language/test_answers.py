"""Answers read from logits: crafted distributions whose probabilities are known."""

import math

import pytest
import torch
from tiny_language import tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import Metaspace as MetaspaceDecoder

from flowsearch.rewards.language import answers
from flowsearch.rewards.language.answers import (
    LEAST,
    MORE,
    Vocabulary,
    first_number,
    number_probabilities,
    yes,
)


def sentence_pieces():
    """A sentence-piece vocabulary whose digits stand behind a blank of their own, as Llama 2's."""
    words = [
        "<unk>",
        "\u2581",
        "\u2581Yes",
        "\u2581No",
        "Yes",
        *map(str, range(10)),
        ".",
        "a",
        "1.",
        "3.",
    ]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = MetaspaceDecoder()
    return made.get_vocab()


VOCABULARIES = {
    "digits apart": lambda: tokenizer([], digits_apart=True).get_vocab(),
    "10 in one": lambda: tokenizer([], digits_apart=False).get_vocab(),
    "blank apart": sentence_pieces,
}


@pytest.fixture(params=VOCABULARIES)
def vocabulary(request):
    tokens = VOCABULARIES[request.param]()
    assert ("10" in tokens) == (request.param == "10 in one")
    return tokens


def table(size, digits, seed):
    """A language model that is a table: each beginning has logits of its own, digits are likely."""

    def logits(said):
        number = seed
        for token in said:
            number = number * 1009 + token + 1
        generator = torch.Generator().manual_seed(number % (1 << 60))
        drawn = torch.randn(size, generator=generator, dtype=torch.float64) * 2.0
        drawn[digits] += 3.0
        return drawn

    return logits


def every_way(logits, vocabulary):
    """Sum all sequences of at most four tokens that write a number, with the token behind them."""
    found = torch.zeros(MORE + 1, dtype=torch.float64)
    blanks = [(token, "", False, False) for token in vocabulary.blanks]
    digits = [(p.token, p.digits, p.glued, p.closed) for p in vocabulary.pieces]

    def go(said, text, p):
        after = logits(said).softmax(-1)
        glued = 0.0
        for token, added, is_glued, is_closed in digits:
            q = float(after[token])
            if text and not is_glued:
                continue
            glued += q
            whole = text + added
            if is_closed or int(whole) > 20 or len(whole) > 2:
                found[min(int(whole), MORE)] += p * q
            else:
                go((*said, token), whole, p * q)
        if text:
            found[int(text)] += p * (1.0 - glued)
        elif not said:
            for token, *_ in blanks:
                go((token,), "", p * float(after[token]))

    go((), "", 1.0)
    return found


def ask(logits):
    return lambda rows, said: torch.stack(
        [logits[row](s) for row, s in zip(rows, said, strict=True)]
    )


def models_of(tokens, count=3):
    vocabulary = Vocabulary(tokens)
    digits = [piece.token for piece in vocabulary.pieces]
    return vocabulary, [table(max(tokens.values()) + 1, digits, seed) for seed in range(count)]


def test_numbers_have_the_probability_of_all_ways_to_write_them(vocabulary, monkeypatch):
    monkeypatch.setattr(answers, "LEAST", 0.0)
    words, rows = models_of(vocabulary)
    found = number_probabilities(ask(rows), [3, 12, 20], words)
    expected = torch.stack([every_way(row, words) for row in rows])
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert float(found.sum(1).max()) <= 1.0 + 1e-9


@pytest.mark.parametrize("target", range(21))
def test_ends_that_are_taken_for_granted_move_little(vocabulary, target):
    words, rows = models_of(vocabulary, 1)
    (found,) = number_probabilities(ask(rows), [target], words)
    expected = every_way(rows[0], words)
    assert float((found - expected).abs().sum()) < 2 * LEAST * (len(words.pieces) + 1)


def test_rows_do_not_touch_each_other(vocabulary):
    words, rows = models_of(vocabulary)
    together = number_probabilities(ask(rows), [1, 10, 2], words)
    for i, target in enumerate((1, 10, 2)):
        assert torch.equal(
            number_probabilities(ask(rows[i : i + 1]), [target], words)[0], together[i]
        )


def likely(vocabulary, **after):
    """Logits with these probabilities; keys are what was said, values piece to probability."""
    size = max(vocabulary.values()) + 1

    def logits(said):
        text = "".join(next(w for w, t in vocabulary.items() if t == token) for token in said)
        given = {vocabulary[w]: p for w, p in after.get(f"after_{text}", {}).items()}
        rest = (1.0 - sum(given.values())) / (size - len(given))
        p = torch.full((size,), max(rest, 1e-300), dtype=torch.float64)
        for token, value in given.items():
            p[token] = value
        return p.log()

    return logits


def test_one_ten_and_twelve_are_told_apart_where_digits_are_apart():
    tokens = VOCABULARIES["digits apart"]()
    end = "<|end|>"
    logits = likely(
        tokens,
        after_={"1": 0.6, "3": 0.3, "Yes": 0.1},
        after_1={"0": 0.5, "2": 0.3, end: 0.2},
        after_10={end: 0.9, "0": 0.1},
        after_12={end: 1.0},
        after_3={end: 0.75, "0": 0.25},
    )
    (found,) = number_probabilities(ask([logits]), [12], Vocabulary(tokens))
    expected = {1: 0.6 * 0.2, 10: 0.6 * 0.5 * 0.9, 12: 0.6 * 0.3, 3: 0.3 * 0.75}
    for number, p in expected.items():
        assert float(found[number]) == pytest.approx(p, abs=1e-9)
    assert float(found[MORE]) == pytest.approx(0.6 * 0.5 * 0.1 + 0.3 * 0.25, abs=1e-9)
    assert float(found.sum()) == pytest.approx(0.9, abs=1e-9)


def test_ten_is_one_token_where_the_vocabulary_has_it():
    tokens = VOCABULARIES["10 in one"]()
    logits = likely(
        tokens,
        after_={"10": 0.5, "1": 0.3, "99": 0.2},
        after_1={"<|end|>": 0.5, "0": 0.5},
        after_10={"<|end|>": 1.0},
    )
    (found,) = number_probabilities(ask([logits]), [10], Vocabulary(tokens))
    assert float(found[10]) == pytest.approx(0.5 + 0.3 * 0.5, abs=1e-9)
    assert float(found[1]) == pytest.approx(0.15, abs=1e-9)
    assert float(found[MORE]) == pytest.approx(0.2, abs=1e-9)


def test_an_unlikely_target_keeps_its_exact_probability():
    """Far below LEAST: "1" then "7", which is looked into because it is the target."""
    tokens = VOCABULARIES["digits apart"]()
    logits = likely(
        tokens, after_={"1": 1e-5, "5": 0.9}, after_1={"7": 1e-3}, after_17={"<|end|>": 1.0}
    )
    (found,) = number_probabilities(ask([logits]), [17], Vocabulary(tokens))
    assert float(found[17]) == pytest.approx(1e-8, rel=1e-6)


def test_calls_are_few_where_the_answer_is_sure():
    tokens = VOCABULARIES["digits apart"]()
    logits = likely(tokens, after_={"5": 0.99995}, after_5={"<|end|>": 1.0})
    calls = []

    def count(rows, said):
        calls.append(len(said))
        return ask([logits])(rows, said)

    number_probabilities(count, [5], Vocabulary(tokens))
    assert calls == [1, 1]


def test_yes_is_summed_over_its_spellings():
    tokens = VOCABULARIES["digits apart"]()
    spelt = [w for w in tokens if w.replace("\u0120", "").lower() == "yes"]
    assert len(spelt) >= 3
    shares = {w: 0.05 * (i + 1) for i, w in enumerate(spelt)}
    logits = likely(tokens, after_={**shares, "No": 0.2})(())[None]
    whole = sum(shares.values())
    words = Vocabulary(tokens)
    assert float(yes(logits, words)) == pytest.approx(whole, rel=1e-5)
    others = [w for w in tokens if w.replace("\u0120", "").lower() == "no" and w != "No"]
    no = 0.2 + sum(float(logits[0, tokens[w]].exp()) for w in others)
    assert float(yes(logits, words, against_no=True)) == pytest.approx(
        whole / (whole + no), rel=1e-5
    )


def test_a_vocabulary_without_yes_is_refused():
    with pytest.raises(ValueError, match="no single token of this model reads 'yes'"):
        yes(torch.zeros(1, 2), Vocabulary({"Y": 0, "es": 1}))


def test_pieces_are_read_with_their_blanks():
    words = Vocabulary(
        {"\u01203": 0, "3": 1, "\u2581": 2, "\u010a": 3, "4.": 4, "x3": 5, "<0x0A>": 6}
    )
    assert [(p.digits, p.glued, p.closed) for p in words.pieces] == [
        ("3", False, False),
        ("3", True, False),
        ("4", True, True),
    ]
    assert words.blanks == [2, 3, 6]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        ("There are 12 apples.", 12),
        ("Three.", 3),
        ("no apples", 0),
        ("There are no dogs, but 2 cats", 2),
        ("none", 0),
        ("", None),
        ("I cannot tell", None),
        ("twenty", 20),
    ],
)
def test_the_first_number_of_a_text(text, number):
    assert first_number(text) == number


@pytest.mark.parametrize("n", range(21))
def test_a_sure_answer_is_certain(vocabulary, n):
    """Said token by token as the vocabulary writes it, then the end."""
    digits = [str(n)] if str(n) in vocabulary else list(str(n))
    after, said = {}, ""
    for digit in digits:
        after[f"after_{said}"] = {digit: 1.0 - 1e-9}
        said += digit
    after[f"after_{said}"] = {"<|end|>" if "<|end|>" in vocabulary else ".": 1.0 - 1e-9}
    (found,) = number_probabilities(ask([likely(vocabulary, **after)]), [n], Vocabulary(vocabulary))
    assert float(found[n]) == pytest.approx(1.0, abs=1e-6)
    assert math.isclose(float(found.sum()), 1.0, abs_tol=1e-6)
