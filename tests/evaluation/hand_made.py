"""Hand-made files of every published form, about ten items each, with the oddities of the published files.

All texts are ours.
"""

from __future__ import annotations

import json

TEXTS = (
    "银行今天下调了利率", "球队昨晚赢了决赛", "新车下周开始预售", "老师布置了两篇作文", "渔民清早出海打鱼",
    "博物馆展出三百件瓷器", "手机厂商发布折叠屏", "村里种的苹果丰收了", "剧组在海边拍摄电影",
    "旅客在机场等候登机", "小区门口开了一家书店", "消防员救下一只小猫",
)  # fmt: skip
NAMES = ("小王", "小李", "老张", "阿花", "大刘", "小赵", "老陈", "阿明", "小周", "老吴")
IDIOMS = (
    "一日千里",
    "百花齐放",
    "杯水车薪",
    "画蛇添足",
    "守株待兔",
    "井底之蛙",
    "亡羊补牢",
    "对牛弹琴",
    "水落石出",
    "雪中送炭",
)
NEWS = (
    "100",
    "101",
    "102",
    "103",
    "104",
    "106",
    "107",
    "108",
    "109",
    "110",
    "112",
    "113",
    "114",
    "115",
    "116",
)
APPS = {"1": "地图导航", "8": "公共交通", "26": "即时通讯", "47": "短视频", "94": "股票"}


def lines(rows):
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def tnews(number=False, start=0):
    """15 items, one of each label; CLUE writes labels as texts, FewCLUE as numbers."""
    return lines(
        {
            "label": int(label) if number else label,
            "label_desc": "news_x",
            "sentence": f"{TEXTS[(n + start) % 12]}，{start + n}号",
            "keywords": "",
            "id": n,
        }
        for n, label in enumerate(NEWS)
    )


def iflytek(number=False, start=0):
    """10 items of 5 labels, whose names are in the rows."""
    labels = [*APPS] * 2
    return lines(
        {
            "label": int(label) if number else label,
            "label_des": APPS[label],
            "sentence": f"{TEXTS[(n + start) % 12]}。软件第{start + n}版，用着方便。",
            "id": n,
        }
        for n, label in enumerate(labels)
    )


def nli(start=0):
    """12 pairs; the last two have no label that the annotators agreed on."""
    labels = ["entailment", "neutral", "contradiction"] * 3 + ["neutral", "-", "-"]
    return lines(
        {
            "level": "easy",
            "sentence1": f"{TEXTS[n % 12]}{start}",
            "sentence2": f"{TEXTS[(n + 3) % 12]}吗{start}",
            "label": label,
            "label0": "entailment",
            "genre": "lit",
            "prem_id": "x",
            "id": n,
        }
        for n, label in enumerate(labels)
    )


def pairs(start=0):
    """10 pairs with the labels "0" and "1"."""
    return lines(
        {
            "sentence1": f"{TEXTS[n]}{start}",
            "sentence2": f"听说{TEXTS[n]}{start}",
            "label": str(n % 2),
            "id": n,
        }
        for n in range(10)
    )


def csl(start=0):
    """10 abstracts, two of them the same with other keywords, as the published set has some."""
    return lines(
        {
            "id": n,
            "abst": f"本文研究{TEXTS[min(n, 8)]}的原因，共{start}例。",
            "keyword": [TEXTS[n][:2], TEXTS[n][2:4]],
            "label": str(n % 2),
        }
        for n in range(10)
    )


def csldcp(start=0):
    """10 abstracts whose label is a discipline's name."""
    names = ("材料", "数学", "法学", "物理", "中医")
    return lines(
        {"content": f"{TEXTS[n]}，试验{start}次。", "label": names[n % 5], "id": n} for n in range(10)
    )


def eprstmt(start=0):
    """10 reviews."""
    labels = ("Positive", "Negative")
    return lines({"id": n, "sentence": f"{TEXTS[n]}，第{start}天", "label": labels[n % 2]} for n in range(10))


def cluewsc(start=0):
    """10 texts; one begins with its pronoun, one ends with it."""
    rows = []
    for n, name in enumerate(NAMES):
        text = f"{name}没来，因为他病了{start or ''}"
        place = text.index("他")
        if n == 8:
            text, place = f"他没来，因为{name}病了", 0
        if n == 9:
            text, place = f"{name}没来，我不怪他", len(name) + 6
        target = {"span1_text": name, "span1_index": 0, "span2_text": "他", "span2_index": place}
        rows.append({"target": target, "idx": n, "label": ("true", "false")[n % 2], "text": text})
    return lines(rows)


def chid_few(start=0):
    """14 items with one blank and 7 candidates; one begins with the blank."""
    contents = [f"{TEXTS[n % 12]}，第{n}次真是#idiom#，都说好{start}。" for n in range(14)]
    contents[3] = "#idiom#的变化让人吃惊。"
    return lines(
        {"id": n, "candidates": [*IDIOMS[:7]], "content": content, "answer": n % 7}
        for n, content in enumerate(contents)
    )


def chid(answers=False):
    """Passages with several blanks, and the file of the answers."""
    tags = [[f"#idiom{10 * n + k:06d}#" for k in range(1 + n % 2)] for n in range(8)]
    if answers:
        return json.dumps(
            {tag: (10 * n + k) % 10 for n, each in enumerate(tags) for k, tag in enumerate(each)}
        )
    rows = (
        {"content": [f"{TEXTS[n]}，" + "，又".join(each) + "。"], "candidates": [*IDIOMS]}
        for n, each in enumerate(tags)
    )
    return lines(rows)


def squad(script="", empty_question=False):
    """5 passages with two questions; one answer's offset is -1, and it is not in its passage."""
    data = []
    for n in range(5):
        context = f"{script}该桥建于19{50 + n}年，全长{n}00米。{TEXTS[n]}。"
        qas = [
            _question(f"D{n}_Q0", "何时建成？", [(f"19{50 + n}年", 4), ("五十年代", -1)]),
            _question(f"D{n}_Q1", "全长多少？", [(f"{n}00米", 0), (f"{n}00米", 13)]),
        ]
        if empty_question and n == 4:
            qas.append(_question("D4_Q2", "", [("x", 0)]))
        data.append(
            {"id": f"D{n}", "title": "t", "paragraphs": [{"id": f"D{n}", "context": context, "qas": qas}]}
        )
    return json.dumps({"version": "v1.0", "data": data}, ensure_ascii=False)


def _question(name, question, answers):
    found = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": question, "answers": found}


def c3(start=0):
    """10 questions of 2 to 4 choices, one with two equal choices."""
    entries = []
    for n in range(10):
        choices = ["还书", "吃饭", "看电影", "睡觉"][: 2 + n % 3]
        if n == 5:
            choices = ["吃饭", "还书", "还书", "睡觉"]
        answer = choices[1] if n == 5 else choices[n % len(choices)]
        dialogue = [f"男：你去哪儿{start}?", f"女：我去{TEXTS[n][:4]}，还要{answer}。"]
        entries.append(
            [dialogue, [{"question": "女的要做什么?", "choice": choices, "answer": answer}], f"1-{n}"]
        )
    return json.dumps(entries, ensure_ascii=False, indent=1)


def cmrc2019(prefix="DEV"):
    """4 passages with 2 or 3 blanks and a false choice."""
    data = []
    for n in range(4):
        count = 2 + n % 2
        choices = [TEXTS[(n + k) % 12] for k in range(count + 1)]
        context = "".join(f"第{k + 1}天，[BLANK{k + 1}]。" for k in range(count)) + f"完{prefix}"
        answers = [*range(count)][::-1]
        data.append(
            {"context_id": f"{prefix}_{n}", "context": context, "choices": choices, "answers": answers}
        )
    return json.dumps({"data": data}, ensure_ascii=False)


def _spaced(text):
    return " ".join(text)


def cft(repeated=False, broken=False):
    """8 records; in the human set the text repeats the query, and one record's query is empty."""
    text = ""
    for n in range(8):
        answer, query = TEXTS[n][:2], f"{_spaced(TEXTS[n][2:])} 的 是 XXXXX 。"
        if n == 2:
            query = f"XXXXX {_spaced(TEXTS[n][2:])} 。"
        text += f"1 ||| {_spaced(TEXTS[n])} 。\n"
        text += f"2 ||| {query}\n" if repeated else ""
        text += f"3 ||| {query} ||| {answer}\n"
    return text + ("1 ||| 童 年 。\n2 |||  ||| 童年\n" if broken else "")


def cmrc2017(answers=False):
    """10 documents that repeat the query's sentence, and the file of the answers."""
    if answers:
        return "".join(f"<qid_{n}> ||| {TEXTS[n][:2]}\n" for n in range(10))
    text = ""
    for n in range(10):
        sentences = [TEXTS[(n + k) % 12] + "。" for k in range(1, 5)]
        sentences.insert(n % 5, f"XXXXX{TEXTS[n][2:]}。" if n % 2 else f"那里的 XXXXX {TEXTS[n][2:]}。")
        text += "".join(
            f"{k} ||| {_spaced(each.replace('XXXXX', '#')).replace('#', 'XXXXX')}\n"
            for k, each in enumerate(sentences, 1)
        )
        text += f"<qid_{n}> ||| {_spaced(sentences[n % 5].replace('XXXXX', '#')).replace('#', 'XXXXX')}\n"
    return text


def webqa(start=0):
    """10 questions; evidences without an answer, and a question that has no answer at all."""
    questions = {}
    for n in range(10):
        answers = [["no_answer"], [TEXTS[n][:3]], [TEXTS[n][:3]]] if n else [["no_answer"]]
        evidences = {f"Q_{n}#{k:02d}": {"answer": each, "evidence": "。"} for k, each in enumerate(answers)}
        questions[f"Q_{n}"] = {"question": f"谁在{TEXTS[n][3:]}{start}?", "evidences": evidences}
    return json.dumps(questions, ensure_ascii=False)


def dureader(start=0):
    """10 questions; one has no answer, one no selected document."""
    rows = []
    for n in range(10):
        documents = [
            {
                "is_selected": n != 7,
                "title": "t",
                "paragraphs": [f"{TEXTS[n]}。{start}", "别的"],
                "most_related_para": 0,
            },
            {"is_selected": False, "title": "t", "paragraphs": []},
        ]
        answers = [] if n == 4 else [TEXTS[n], f"是{TEXTS[n]}"]
        rows.append({"question_id": n, "question": f"第{n}件事怎么样", "question_type": "DESCRIPTION",
                     "answers": answers, "documents": documents})  # fmt: skip
    return lines(rows)


def wplc():
    """10 texts with a masked word."""
    return lines(
        {"masked_text": f"{TEXTS[n][:-2]}<mask>。", "correct_word": TEXTS[n][-2:]} for n in range(10)
    )


def own_choices():
    """10 questions with own candidates, for a user's own task."""
    return lines(
        {"id": n, "q": f"{TEXTS[n]}?", "choices": ["是", "否", "不知"], "right": n % 3} for n in range(10)
    )


def contents():
    """Every file by its path below the data folder."""
    files = {
        "cmrc2018/cmrc2018_dev.json": squad(),
        "cmrc2018/cmrc2018_trial.json": squad("试：", empty_question=True),
        "drcd/DRCD_dev.json": squad("該"),
        "dureader/devset/zhidao.dev.json": dureader(),
        "dureader/trainset/zhidao.train.json": dureader(1),
        "webqa/me_test.ann.json": webqa(),
        "webqa/me_train.json": webqa(1),
        "cft/cft.test.auto": cft(),
        "cft/cft.test.human": cft(repeated=True, broken=True),
        "pd/pd.test": cft(),
        "cmrc2017/cloze.valid.doc_query": cmrc2017(),
        "cmrc2017/cloze.valid.answer": cmrc2017(answers=True),
        "wplc/dev.json": wplc(),
        "clue/chid_public/dev.json": chid(),
        "clue/chid_public/dev_answer.json": chid(answers=True),
        "cmrc2019/cmrc2019_dev.json": cmrc2019(),
        "cmrc2019/cmrc2019_trial.json": cmrc2019("TRIAL"),
        "clue/cluewsc2020_public/dev.json": cluewsc(),
        "clue/cluewsc2020_public/train.json": cluewsc(1),
        "c3/c3-d-dev.json": c3(),
        "c3/c3-d-train.json": c3(1),
        "c3/c3-m-dev.json": c3(2),
        "clue/cmnli_public/dev.json": nli(),
        "clue/cmnli_public/train.json": nli(1),
        "clue/ocnli_public/dev.json": nli(2),
        "clue/ocnli_public/train.json": nli(3),
        "clue/tnews_public/dev.json": tnews(),
        "clue/tnews_public/train.json": tnews(start=20),
        "clue/iflytek_public/dev.json": iflytek(),
        "clue/iflytek_public/train.json": iflytek(start=20),
        "clue/afqmc_public/dev.json": pairs(),
        "clue/afqmc_public/train.json": pairs(1),
        "clue/csl_public/dev.json": csl(),
        "clue/csl_public/train.json": csl(1),
    }
    few = {
        "eprstmt": eprstmt, "csldcp": csldcp, "bustm": pairs, "ocnli": nli, "csl": csl, "cluewsc": cluewsc,
        "chid": chid_few,
        "tnews": lambda start=0: tnews(number=True, start=start),
        "iflytek": lambda start=0: iflytek(number=True, start=start),
    }  # fmt: skip
    for name, make in few.items():
        files[f"fewclue/{name}/test_public.json"] = make()
        files |= {f"fewclue/{name}/train_{fold}.json": make(start=5 + fold) for fold in range(5)}
    return files


def write_all(folder):
    """Writes all files."""
    for path, text in contents().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
