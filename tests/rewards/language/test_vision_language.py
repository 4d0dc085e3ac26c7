"""Questions to small models of true architectures against the libraries' own pipelines."""

import json
import shutil
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_language import MAKERS, folder, language_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.language.answers import Vocabulary
from flowsearch.rewards.language.vision_language import (
    Ask,
    FolderModel,
    load_network,
    load_processor,
)
from flowsearch.rewards.language.vlm_count import QUESTION, VLMCount
from flowsearch.rewards.language.vqa_score import (
    PAPER,
    VQAScore,
    questions_from_text,
    weights_from_text,
)
from flowsearch.rewards.prompts.counting import Target, parse_targets
from flowsearch.rewards.weights.holder import Local

SHORT, LONG = "Is it red?", "Does this figure show a cat? Please answer yes or no."


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


def pictures(count=3, height=60, width=90):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(11))


def reference(name):
    """The library's own objects, loaded as its documentation says."""
    path = str(folder(name))
    processor = AutoProcessor.from_pretrained(path)
    return AutoModelForImageTextToText.from_pretrained(path).float().eval(), processor


def conversation(image, question):
    picture = Image.fromarray((image.numpy() * 255).round().astype(np.uint8))
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def reference_inputs(processor, image, question):
    return processor.apply_chat_template(
        conversation(image, question),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_logits_are_those_of_the_library_s_forward(name):
    network, processor = reference(name)
    images = pictures()
    asks = [Ask(i, question) for i in range(3) for question in (SHORT, LONG)]
    found = language_model(name).next_token(images, asks)
    for row, ask in zip(found, asks, strict=True):
        inputs = reference_inputs(processor, images[ask.picture], ask.question)
        with torch.no_grad():
            expected = network(**inputs).logits[0, -1]
        assert torch.allclose(row, expected, rtol=1e-4, atol=1e-4)


def test_what_was_said_is_what_generating_says(name):
    """Logits after the first tokens of the library's own answer are its own next logits."""
    network, processor = reference(name)
    images = pictures(1)
    inputs = reference_inputs(processor, images[0], LONG)
    made = network.generate(
        **inputs,
        max_new_tokens=4,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        eos_token_id=None,
        pad_token_id=1,
    )
    tokens = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    model = language_model(name)
    for length in range(4):
        row = model.next_token(images, [Ask(0, LONG, tuple(tokens[:length]))])[0]
        assert torch.allclose(row, made.logits[length][0], rtol=1e-4, atol=1e-4)
    answer = model.answer(images, [Ask(0, LONG)], 4)
    assert answer[0].startswith(processor.tokenizer.decode(tokens[:1], skip_special_tokens=True))


def test_answers_are_greedy_whatever_the_folder_prefers(name, tmp_path):
    shutil.copytree(folder(name), tmp_path / "model")
    file = tmp_path / "model" / "generation_config.json"
    prefers = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "num_beams": 2}
    file.write_text(json.dumps({**json.loads(file.read_text()), **prefers}))
    network = load_network(tmp_path / "model", torch.float32)
    model, asks = language_model(name), [Ask(i, LONG) for i in range(3)]
    other = FolderModel(Local(network), load_processor(tmp_path / "model"))
    assert other.answer(pictures(), asks, 8) == model.answer(pictures(), asks, 8)


def test_padding_at_the_left_changes_nothing(name):
    """Questions of two lengths in one batch."""
    images, model = pictures(), language_model(name)
    asks = [Ask(i, question) for i in range(3) for question in (SHORT, LONG)]
    mask = model._inputs(images, asks)["attention_mask"]
    assert bool((mask[:, 0] == 0).any())
    assert bool((mask[:, -1] == 1).all())
    together = model.next_token(images, asks)
    for row, ask in zip(together, asks, strict=True):
        assert torch.allclose(row, model.next_token(images, [ask])[0], rtol=1e-4, atol=2e-5)


def test_pictures_and_questions_matter(name):
    images, model = pictures(), language_model(name)
    found = model.next_token(images, [Ask(0, SHORT), Ask(1, SHORT), Ask(0, LONG), Ask(0, SHORT)])
    assert torch.allclose(found[0], found[3], atol=1e-5)
    assert float((found[0] - found[1]).abs().max()) > 1e-2
    assert float((found[0] - found[2]).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ["qwen", "llava"])
def test_what_is_differentiated_is_what_the_processor_makes(name):
    """Within the two levels that torchvision's coarser 8-bit filter is from PIL's."""
    model, images = language_model(name), pictures()
    inputs = model._inputs(images, [Ask(i, LONG) for i in range(3)])
    found = model._twin(images.clone().requires_grad_(), inputs).detach()
    assert found.shape == inputs["pixel_values"].shape
    assert float((found - inputs["pixel_values"]).abs().max()) * 0.27 * 255 < 2.5


def test_a_model_that_is_known_only_in_8_bits_says_so():
    reward = VQAScore(language_model("idefics"), (LONG,))
    assert not reward.spec.has_gradient
    with pytest.raises(ValueError, match="no gradient: what Idefics3"):
        gradient_of(reward, pictures())
    with pytest.raises(ValueError, match="no gradient: what Idefics3"):
        reward.gradient(pictures())


def test_vqa_score_is_the_probability_of_yes_in_the_reference(name):
    network, processor = reference(name)
    images = pictures(2)
    tokens = processor.tokenizer.get_vocab()
    ids = [t for w, t in tokens.items() if w.replace("\u0120", "").lower() == "yes"]
    question = questions_from_text(PAPER, "a cat")
    values = VQAScore(language_model(name), question).score(images)
    for value, image in zip(values, images, strict=True):
        inputs = reference_inputs(processor, image, question[0])
        with torch.no_grad():
            p = network(**inputs).logits[0, -1].softmax(-1)
        assert float(value) == pytest.approx(float(p[ids].sum()), rel=1e-3)


def test_questions_are_weighed(name):
    model, images = language_model(name), pictures(2)
    single = [VQAScore(model, (question,)).score(images) for question in (SHORT, LONG)]
    mean = VQAScore(model, (SHORT, LONG), (1.0, 3.0)).assess(images)
    assert torch.allclose(mean.values, (single[0] + 3 * single[1]) / 4, rtol=1e-4)
    assert [list(part) for part in mean.parts] == [[SHORT, LONG]] * 2
    assert mean.parts[1][LONG] == pytest.approx(float(single[1][1]), rel=1e-4)
    geometric = VQAScore(model, (SHORT, LONG), (1.0, 3.0), "geometric_mean").score(images)
    assert torch.allclose(geometric, (single[0] * single[1] ** 3) ** 0.25, rtol=1e-3)


def test_counts_are_read_from_the_reference_s_own_next_tokens(name):
    """One target, its probability from sequences of the library's forward passes."""
    network, processor = reference(name)
    images, (target,) = pictures(1), parse_targets("12 apples")
    tokens = processor.tokenizer.get_vocab()
    inputs = reference_inputs(processor, images[0], QUESTION.replace("{things}", "apples"))

    def after(*said):
        """Probabilities of the next token, by generating with the beginning forced."""
        model = language_model(name)
        row = model.next_token(images, [Ask(0, QUESTION.replace("{things}", "apples"), said)])[0]
        if not said:
            with torch.no_grad():
                expected = network(**inputs).logits[0, -1]
            assert torch.allclose(row, expected, rtol=1e-4, atol=1e-4)
        return row.double().softmax(-1)

    one, two = tokens["1"], tokens["2"]
    glued = [t for w, t in tokens.items() if w[0].isdigit()]
    way = float(after()[one] * after(one)[two] * (1 - after(one, two)[glued].sum()))
    found = VLMCount(language_model(name), (target,)).assess(images).parts[0]
    number = found["apple: answers with a number"]
    assert found["apple: probability of 12"] * number >= way * (1 - 1e-3)
    assert 0.0 < number <= 1.0


class TestVLMCount:
    """Rewards by what is known of the distribution."""

    def test_the_methods_agree_with_the_parts(self):
        images, targets = pictures(2), parse_targets("three cats, 12 dogs")
        model = language_model("qwen")
        by_log = VLMCount(model, targets).assess(images)
        for value, part in zip(by_log.values, by_log.parts, strict=True):
            p = [part["cat: probability of 3"], part["dog: probability of 12"]]
            assert float(value) == pytest.approx(float(np.log(p).sum()), rel=1e-5)
        error = VLMCount(model, targets, "expected_error").assess(images)
        assert error.parts == by_log.parts
        assert bool((error.values < 0).all())
        assert "cats, 3 wanted (" in by_log.notes[0]
        assert "dogs, 12 wanted (" in by_log.notes[0]

    @pytest.mark.parametrize(
        ("count", "probability", "error"),
        [(3, 0.6, 0.3 + 0.05 * 9), (4, 0.3, 0.6 + 0.05 * 8), (12, 0.05, 0.6 * 9 + 0.3 * 8)],
    )
    def test_a_known_distribution_has_the_reward_that_follows(self, count, probability, error):
        number, images, targets = 0.95, pictures(2), (Target(count, "cat", "cats"),)
        by_log = VLMCount(Table(), targets).assess(images)
        assert by_log.values.tolist() == pytest.approx([np.log(probability / number)] * 2, rel=1e-5)
        part = by_log.parts[0]
        assert part["cat: expected"] == pytest.approx((1.8 + 1.2 + 0.6) / number, rel=1e-5)
        assert part["cat: most likely"] == 3.0
        assert part["cat: answers with a number"] == pytest.approx(number, rel=1e-5)
        by_error = VLMCount(Table(), targets, "expected_error").score(images)
        assert by_error.tolist() == pytest.approx([-error / number] * 2, rel=1e-5)

    def test_an_impossible_count_has_a_finite_reward(self):
        reward = VLMCount(Table(), (Target(0, "cat", "cats"), Target(20, "dog", "dogs")))
        (value,) = reward.score(pictures(1)).tolist()
        assert reward.spec.low <= value < -20.0

    def test_text_is_read_where_logits_are_not(self):
        images, targets = pictures(2), parse_targets("three cats")
        found = VLMCount(Says(["There are 5.", "I see nothing"]), targets, "greedy_text")
        assert found.assess(images).values.tolist() == [-2.0, -21.0]
        assert found.assess(images).parts == [{"cat: counted": 5.0}, {}]
        assert "There are 5." in found.assess(images).notes[0]

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({"targets": parse_targets("21 cats")}, "21 cats are too many"),
            ({"method": "median"}, "log_probability"),
            ({"question": "How many?"}, "names no thing"),
            ({"targets": ()}, "no targets"),
        ],
    )
    def test_what_cannot_be_asked_is_refused(self, given, why):
        with pytest.raises(ValueError, match=why):
            VLMCount(**{"model": Says([]), "targets": parse_targets("two cats"), **given})


class Table:
    """A model whose answer is 3 at 0.6, 4 at 0.3 and 12 at 0.05, and words otherwise."""

    vocabulary = Vocabulary({**{str(i): i for i in range(10)}, "end": 10})
    after: ClassVar = {(): {3: 0.6, 4: 0.3, 1: 0.05, 10: 0.05}, (1,): {2: 1.0}}

    def next_token(self, images, asks):
        p = torch.zeros(len(asks), 11, dtype=torch.float64)
        for row, ask in zip(p, asks, strict=True):
            for token, value in self.after.get(ask.said, {10: 1.0}).items():
                row[token] = value
        return p.log()


class Says:
    """A model that gives text and nothing else."""

    def __init__(self, answers):
        self.answers = answers

    def answer(self, images, asks, length):
        assert length > 0
        return [self.answers[ask.picture] for ask in asks]


class TestQuestions:
    """Lines of text to questions and weights."""

    def test_the_prompt_goes_where_it_is_named(self):
        assert questions_from_text(f"{PAPER}\n\n Is it red? ", " a cat ") == (
            'Does this figure show "a cat"? Please answer yes or no.',
            "Is it red?",
        )

    def test_a_language_model_s_list_is_read_without_its_marks(self):
        text = "Here are the questions:\n\n1. Is there a cat?\n2) Is it red?\n- Are there 3 dogs?\n"
        wanted = ("Is there a cat?", "Is it red?", "Are there 3 dogs?", "3 dogs, are they there?")
        assert questions_from_text(text + "* 3 dogs, are they there?", "") == wanted
        assert questions_from_text("3 dogs?\n1.5 metres high?", "") == (
            "3 dogs?",
            "1.5 metres high?",
        )

    @pytest.mark.parametrize(
        ("text", "prompt", "why"),
        [
            ("", "a cat", "at least one question"),
            ("Here they are:", "a cat", "at least one question"),
            ("\n".join(f"Is it {i}?" for i in range(65)), "", "65 questions.*at most 64"),
            (PAPER, " ", "the prompt is empty"),
            ("Is it red?\nIs it red?", "", "asked twice"),
        ],
    )
    def test_questions_that_make_no_sense_are_refused(self, text, prompt, why):
        with pytest.raises(ValueError, match=why):
            questions_from_text(text, prompt)

    def test_weights_are_one_a_question(self):
        assert weights_from_text("", 2) == (1.0, 1.0)
        assert weights_from_text("1\n 0.5", 2) == (1.0, 0.5)
        for wrong in ("1", "1 2 3", "1 -1", "1 nan", "1 inf", "1 x", "1 0"):
            with pytest.raises(ValueError, match="one positive number"):
                weights_from_text(wrong, 2)

    def test_words_in_braces_that_stand_for_nothing_are_refused(self):
        with pytest.raises(ValueError, match=r"holds \{promt\}.*only \{prompt\}"):
            questions_from_text("Is it {promt}?", "a cat")

    def test_combinations_that_are_not_known_are_refused(self):
        with pytest.raises(ValueError, match="mean or geometric_mean"):
            VQAScore(Says([]), ("a?",), combine="median")
        with pytest.raises(ValueError, match="2 weights for 1 questions"):
            VQAScore(Says([]), ("a?",), (1.0, 2.0))


class TestFolders:
    """What a folder holds, and what it may not."""

    def test_a_folder_without_weights_is_explained(self, tmp_path):
        shutil.copytree(folder("llava"), tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").unlink()
        with pytest.raises(ValueError, match=r"cannot load model.*safetensors"):
            load_network(tmp_path / "model", torch.float32)

    def test_a_folder_without_its_words_is_refused(self, tmp_path):
        shutil.copytree(folder("llava"), tmp_path / "model")
        for file in (tmp_path / "model").glob("tokenizer*"):
            file.unlink()
        with pytest.raises(ValueError, match=r"model holds no tokenizer|cannot load model"):
            load_processor(tmp_path / "model")

    def test_another_kind_is_explained_without_a_list_of_all_kinds(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "clip"}')
        with pytest.raises(ValueError, match="AutoModelForImageTextToText") as found:
            load_network(tmp_path, torch.float32)
        assert len(str(found.value)) < 700

    def test_pickled_weights_are_not_read(self, tmp_path):
        shutil.copytree(folder("llava"), tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").unlink()
        torch.save({}, tmp_path / "model" / "pytorch_model.bin")
        with pytest.raises(ValueError, match="cannot load model"):
            load_network(tmp_path / "model", torch.float32)

    def test_code_of_the_folder_is_not_run(self, tmp_path):
        shutil.copytree(folder("llava"), tmp_path / "model")
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        config.update(model_type="own", auto_map={"AutoConfig": "code.Config"})
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        (tmp_path / "model" / "code.py").write_text("raise SystemExit('it ran')")
        with pytest.raises(ValueError, match="cannot load model"):
            load_network(tmp_path / "model", torch.float32)

    def test_a_folder_without_a_processor_is_explained(self, tmp_path):
        shutil.copytree(folder("llava"), tmp_path / "model")
        for file in (tmp_path / "model").glob("*processor*"):
            file.unlink()
        with pytest.raises(ValueError, match="model"):
            load_processor(tmp_path / "model")

    def test_weights_have_the_type_that_was_asked_for(self):
        assert load_network(folder("llava"), torch.bfloat16).dtype == torch.bfloat16

    def test_a_model_without_a_template_is_asked_plainly(self):
        processor = load_processor(folder("llava"))
        processor.chat_template = processor.tokenizer.chat_template = None
        model = FolderModel(language_model("llava").holder, processor)
        assert model._text("Is it red?") == "<image>Is it red?"
        assert model.next_token(pictures(1), [Ask(0, "Is it red?")]).isfinite().all()
