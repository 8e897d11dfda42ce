"""What the loaders make of the published forms, oddities included, and how they refuse other files."""

from __future__ import annotations

import json
import logging
import shutil

import hand_made
import pytest

from pangu_alpha.evaluation.tasks.catalog import load_tasks
from pangu_alpha.evaluation.tasks.item import TaskFilesError
from pangu_alpha.evaluation.tasks.loading import load_sets

TASKS = load_tasks()


def items(name, data, **more):
    """The items of a task."""
    (found,) = load_sets([TASKS[name]], data, **more)
    return found.items


COUNTS = {
    "cmrc2018": 10, "drcd": 10, "dureader": 8, "webqa": 9, "cft": 8, "pd": 8, "cmrc2017": 10, "wplc": 10,
    "chid": 12, "cmrc2019": 10, "cluewsc2020": 10, "c3": 10, "cmnli": 10, "ocnli": 10, "tnews": 15,
    "iflytek": 10, "afqmc": 10, "csl": 10, "fewclue_chid": 14, "fewclue_csldcp": 10,
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_items(name, eval_data):
    found = items(name, eval_data)
    assert len(found) == COUNTS[name] == len({item.id for item in found})
    assert all(item.where.startswith(str(eval_data)) for item in found)


def test_labels_without_agreement_are_left_out(eval_data):
    found = items("ocnli", eval_data)
    assert {item.target for item in found} == {"entailment", "neutral", "contradiction"}
    assert [choice["label"] for choice in found[0].choices] == ["entailment", "neutral", "contradiction"]


def test_answers_are_texts_whose_offsets_do_not_count(eval_data):
    first = items("cmrc2018", eval_data)[0]
    assert first.references == ("1950年", "五十年代") and first.group == first.fields["passage"]
    assert "五十年代" not in first.fields["passage"]


def test_pronouns_are_cut_out_at_their_place(eval_data):
    found = items("cluewsc2020", eval_data)
    assert found[0].fields == {"before": "小王没来，因为", "name": "小王", "pronoun": "他", "after": "病了"}
    assert found[8].fields["before"] == "" and found[9].fields["after"] == ""


def test_idioms_of_a_passage_with_several_blanks(eval_data):
    found = items("chid", eval_data)
    assert [item.id for item in found[1:3]] == ["idiom000010", "idiom000011"]
    assert found[1].fields == {"before": "球队昨晚赢了决赛，", "after": "，又。"} and found[1].gold == 0
    assert found[2].fields == {"before": "球队昨晚赢了决赛，，又", "after": "。"} and found[2].gold == 1


def test_equal_choices_of_a_question(eval_data):
    item = items("c3", eval_data)[5]
    assert [choice["choice"] for choice in item.choices] == [
        "吃饭",
        "还书",
        "还书",
        "睡觉",
    ] and item.gold == 1
    assert item.fields["passage"].count("\n") == 1


def test_blanks_of_a_passage(eval_data):
    first, second = items("cmrc2019", eval_data)[:2]
    assert first.fields == {"before": "第1天，", "after": "。第2天，。完DEV"} and first.gold == 1
    assert second.fields["before"] == "第1天，。第2天，" and first.group == second.group == "DEV_0"


def test_cloze_sentences_are_moved_and_repeated_ones_dropped(eval_data):
    found = items("cmrc2017", eval_data)
    assert found[0].fields["query"] == "那里的" and found[1].fields["query"] == ""
    # sentence 4 of 5 has the blank: the two before it stand last
    texts = [hand_made.TEXTS[(4 + k) % 12] + "。" for k in range(1, 5)]
    assert found[4].fields["passage"] == "".join([*texts[:2], *texts[2:]]) and found[4].references == (
        "渔民",
    )
    human = load_sets([TASKS["cft"]], eval_data, [0])[0].shots[0]
    assert len(human) == 8 and all("XXXXX" not in item.fields["passage"] for item in human)


def test_evidences_without_answer_are_passed_over(eval_data):
    assert items("webqa", eval_data)[0].id == "Q_1"
    assert items("webqa", eval_data)[0].references == ("球队昨",)
    assert {item.id for item in items("dureader", eval_data)} == {*"01235689"}


def test_labels_named_by_the_files(eval_data):
    first = items("iflytek", eval_data)[0]
    assert [choice["label"] for choice in first.choices] == [*hand_made.APPS.values()]
    assert items("fewclue_tnews", eval_data)[3].target == "103"
    assert len(items("fewclue_csldcp", eval_data)[0].choices) == 5


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [("iflytek_all", "clue/iflytek_public", "dev.json"),
     ("fewclue_iflytek_all", "fewclue/iflytek", "test_public.json"),
     ("fewclue_csldcp", "fewclue/csldcp", "test_public.json")],
)  # fmt: skip
def test_candidates_are_all_labels_of_the_set_and_not_only_those_of_the_evaluated_file(
    name, folder, file, eval_data, tmp_path
):
    shutil.copytree(eval_data / folder, tmp_path / folder)
    path = tmp_path / folder / file
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:3]), "utf-8")
    found, before = items(name, tmp_path), items(name, eval_data)
    assert len(found) == 3 and all(item.choices == before[0].choices for item in found)
    assert [item.target for item in found] == [item.target for item in before[:3]]
    with_shots = load_sets([TASKS[name]], tmp_path, [2])[0]
    assert with_shots.items == found
    assert all(example.choices == before[0].choices for example in with_shots.examples(2))


def test_a_file_of_labels_names_those_that_no_row_has(eval_data, tmp_path):
    shutil.copytree(eval_data / "clue/iflytek_public", tmp_path / "iflytek")
    labels = tmp_path / "iflytek" / "labels.json"
    alone = load_sets([TASKS["iflytek_all"]], tmp_path)[0]
    labels.write_text(
        '{"label": "118", "label_des": "其他"}\n{"label": "8", "label_des": "公共交通"}\n', "utf-8"
    )
    both = load_sets([TASKS["iflytek_all"]], tmp_path)[0]
    names = [choice["label"] for choice in both.items[0].choices]
    assert names == [*hand_made.APPS.values(), "其他"] and both.items[0].gold == 0
    assert both.digest != alone.digest  # other candidates, other results
    labels.write_text('{"label": "118"}\n{"label": "8", "label_des": "交通"}\n', "utf-8")
    with pytest.raises(TaskFilesError) as error:
        load_sets([TASKS["iflytek_all"]], tmp_path)
    assert "2 problems" in str(error.value) and "labels.json, line 1: no key 'label_des'" in str(error.value)
    assert "labels.json, line 2: label 8 is '交通' here, and '公共交通' before" in str(error.value)


def test_a_zip_that_is_not_unpacked_is_named(tmp_path):
    with pytest.raises(TaskFilesError, match="no file of task cft: .*, in cft.zip, which has to be unpacked"):
        load_sets([TASKS["cft"]], tmp_path)


def test_faults_of_published_files_are_left_out_with_a_note(eval_data, caplog):
    with caplog.at_level(logging.WARNING):
        (found,) = load_sets([TASKS["cmrc2018"]], eval_data, [0])
        load_sets([TASKS["cft"]], eval_data, [0])
    assert len(found.shots[0]) == 10
    assert "question D4_Q2: left out: its question is empty" in caplog.text
    assert "left out: its query is empty" in caplog.text


def test_without_a_file_of_examples_the_evaluated_one_is_taken_and_said(eval_data, caplog):
    (found,) = load_sets([TASKS["drcd"]], eval_data, [0])
    assert found.shots[0] == found.items
    assert "drcd: no file of solved examples" in caplog.text


def test_a_limit_draws_by_hashes_and_keeps_the_order(eval_data):
    some, all_of = items("tnews", eval_data, limit=5), items("tnews", eval_data)
    assert len(some) == 5 and some != all_of[:5]
    assert [item.id for item in all_of if item in some] == [item.id for item in some]


def test_a_limit_keeps_the_passages_whole_whose_blanks_are_assigned_together(eval_data):
    some, all_of = items("cmrc2019", eval_data, limit=3), items("cmrc2019", eval_data)
    assert 3 <= len(some) <= 5
    assert some == tuple(item for item in all_of if item.group in {each.group for each in some})


def test_answers_are_those_of_the_file_that_was_found(eval_data, tmp_path):
    """Answers of the test set, whose questions are not published, have the same names."""
    shutil.copytree(eval_data / "cmrc2017", tmp_path / "cmrc2017")
    own = (tmp_path / "cmrc2017" / "cloze.valid.answer").read_text("utf-8")
    strange = "".join(f"{line.split(' ||| ')[0]} ||| 别的\n" for line in own.splitlines())
    (tmp_path / "cmrc2017" / "cloze.test.answer").write_text(strange, "utf-8")
    found = items("cmrc2017", tmp_path)
    assert len(found) == 10 and all(item.references != ("别的",) for item in found)


def broken(data, tmp_path, path, change):
    """A folder with one file, changed."""
    text = change((data / path).read_text("utf-8"))
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text, "utf-8")
    return tmp_path


def row(**changes):
    """Changes keys of the second line; None removes one."""

    def change(text):
        parts = text.split("\n")
        value = json.loads(parts[1])
        value |= changes
        parts[1] = json.dumps(
            {key: each for key, each in value.items() if each is not None}, ensure_ascii=False
        )
        return "\n".join(parts)

    return change


CMRC, SQUAD_QUESTION = "cmrc2018/cmrc2018_dev.json", "question D0_Q0"
BAD = [
    ("tnews", "clue/tnews_public/dev.json", row(label="999"), "line 2: 'label' must be one of 100, 101"),
    ("tnews", "clue/tnews_public/dev.json", row(label=101), "line 2: 'label' must be a text, not 101"),
    (
        "fewclue_tnews",
        "fewclue/tnews/test_public.json",
        row(label="101"),
        "line 2: 'label' must be a whole number",
    ),
    (
        "tnews",
        "clue/tnews_public/dev.json",
        row(sentence=None),
        "line 2: no key 'sentence'; the row has label",
    ),
    ("tnews", "clue/tnews_public/dev.json", row(sentence=" "), "line 2: 'sentence' is empty"),
    ("tnews", "clue/tnews_public/dev.json", lambda text: text[:-40], "line 15, line 1, column"),
    ("tnews", "clue/tnews_public/dev.json", lambda text: "", "holds no item; it is empty or was cut off"),
    ("tnews", "clue/tnews_public/dev.json", lambda text: "[1]\n" + text, "line 1: must be an object"),
    (
        "iflytek",
        "clue/iflytek_public/dev.json",
        row(label_des="股票", label="1"),
        "line 2: label 1 is '股票' here",
    ),
    (
        "csl",
        "clue/csl_public/dev.json",
        row(keyword=[]),
        "line 2: 'keyword' must have at least 1 entries, not 0",
    ),
    ("csl", "clue/csl_public/dev.json", row(keyword=["a", 3]), "line 2: 'keyword': entry 1 must be a text"),
    ("ocnli", "clue/ocnli_public/dev.json", row(label="maybe"), "line 2: 'label' must be one of entailment"),
    (
        "cluewsc2020",
        "clue/cluewsc2020_public/dev.json",
        row(label=True),
        "line 2: 'label' must be a text, not True",
    ),
    (
        "cluewsc2020",
        "clue/cluewsc2020_public/dev.json",
        row(label="yes"),
        "line 2: 'label' must be true or false",
    ),
    (
        "cluewsc2020",
        "clue/cluewsc2020_public/dev.json",
        row(target={"span1_text": "小李", "span2_text": "他", "span2_index": 0}),
        "line 2, target: 'span2_index': the text",
    ),
    (
        "fewclue_chid",
        "fewclue/chid/test_public.json",
        row(answer=7),
        "line 2: 'answer' must be from 0 to 6, not 7",
    ),
    (
        "fewclue_chid",
        "fewclue/chid/test_public.json",
        row(candidates=[]),
        "line 2: 'candidates' must have at least 2",
    ),
    (
        "fewclue_chid",
        "fewclue/chid/test_public.json",
        row(content="无"),
        "line 2: 'content' must have #idiom# once",
    ),
    ("cmrc2018", CMRC, lambda text: text[:-30], "cmrc2018_dev.json, line 1, column"),
    ("cmrc2018", CMRC, lambda text: "[]", "must hold an object, not []"),
    (
        "cmrc2018",
        CMRC,
        lambda text: text.replace('"何时建成？"', "5", 1),
        f"{SQUAD_QUESTION}: 'question' must be a text",
    ),
    ("cmrc2018", CMRC, lambda text: text.replace('"D0_Q1"', '"D0_Q0"'), "the same id 'D0_Q0' as "),
    (
        "c3",
        "c3/c3-d-dev.json",
        lambda text: text.replace('"answer": "还书"', '"answer": "休息"', 1),
        "is none of the",
    ),
    ("c3", "c3/c3-d-dev.json", lambda text: '[["男：好"]]', "entry 0: must be [[lines], [questions], id]"),
    (
        "cmrc2019",
        "cmrc2019/cmrc2019_dev.json",
        lambda text: text.replace("[1, 0]", "[]", 1),
        "passage DEV_0: 'answers'",
    ),
    (
        "cmrc2019",
        "cmrc2019/cmrc2019_dev.json",
        lambda text: text.replace("[1, 0]", "[0, 0]", 1),
        "different index below",
    ),
    ("cft", "cft/cft.test.auto", lambda text: text[: text.rindex("|||")], "the file was cut off"),
    ("cft", "cft/cft.test.auto", lambda text: text.replace("XXXXX", "", 1), "line 2: the query has no XXXXX"),
    ("cft", "cft/cft.test.auto", lambda text: "无\n" + text, "line 1: must be `n ||| words`"),
    (
        "webqa",
        "webqa/me_test.ann.json",
        lambda text: text.replace('"question": "谁在', '"x": "谁在', 1),
        "Q_0: no key",
    ),
    ("wplc", "wplc/dev.json", row(masked_text="无"), "line 2: 'masked_text' must have <mask> once, not 0"),
    ("dureader", "dureader/devset/zhidao.dev.json", row(documents={}), "line 2: 'documents' must be a list"),
]


@pytest.mark.parametrize(("name", "path", "change", "said"), BAD)
def test_a_file_of_another_form_is_refused_with_its_place(name, path, change, said, eval_data, tmp_path):
    with pytest.raises(TaskFilesError) as error:
        load_sets([TASKS[name]], broken(eval_data, tmp_path, path, change))
    assert said in str(error.value) and str(tmp_path / path) in str(error.value)


def test_all_problems_of_all_files_are_told_at_once(eval_data, tmp_path):
    broken(eval_data, tmp_path, "clue/tnews_public/dev.json", row(label="999"))
    broken(eval_data, tmp_path, "c3/c3-d-dev.json", lambda text: "{}")
    with pytest.raises(TaskFilesError) as error:
        load_sets([TASKS[name] for name in ("tnews", "c3", "drcd")], tmp_path)
    said = str(error.value)
    assert said.startswith("3 problems in the evaluation files:")
    assert "line 2: 'label'" in said and "c3-d-dev.json: must hold a list" in said
    assert (
        "no file of task drcd: looked for **/DRCD_dev.json; it is published at DRCKnowledgeTeam/DRCD" in said
    )


def test_answers_in_another_file_must_be_there(eval_data, tmp_path):
    broken(eval_data, tmp_path, "cmrc2017/cloze.valid.doc_query", str)
    with pytest.raises(TaskFilesError, match=r"no file of task cmrc2017: looked for .*cloze.valid.answer"):
        load_sets([TASKS["cmrc2017"]], tmp_path)
    answers = (eval_data / "cmrc2017" / "cloze.valid.answer").read_text("utf-8")
    (tmp_path / "cmrc2017" / "cloze.valid.answer").write_text(answers.replace("<qid_3>", "<qid_33>"), "utf-8")
    with pytest.raises(TaskFilesError, match="no answer for '<qid_3>'"):
        load_sets([TASKS["cmrc2017"]], tmp_path)
