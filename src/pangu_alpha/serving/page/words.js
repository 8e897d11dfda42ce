/** The page's own words, each in Chinese and in English; a text of the server in both languages is `{zh, en}`. */

export const WORDS = {
  other: ["English", "中文"], base: ["基础语言模型，只会续写", "A base language model: it only continues text"], work: ["写作", "Writing"],
  side: ["设置与历史", "Settings and history"], mode: ["做什么", "What to do"], free: ["续写", "Continue"], task: ["任务", "Tasks"],
  dialogue: ["对话", "Dialogue"],
  about_free: ["写个开头，模型接着往下写。它不懂指令，只会续写。", "Begin a text and the model writes on. It follows no instructions, it only continues."],
  about_dialogue: ["模型续写一段对话，轮到它时写一句。", "The model continues a conversation and writes one line when it is its turn."],
  prompt: ["开头", "Beginning"], prompt_hint: ["写个开头……", "Begin a text …"], persona: ["对方是谁（可不填）", "Who answers (optional)"],
  turn: ["你说", "You say"], user: ["你", "You"], assistant: ["模型", "Model"], plain: ["普通对话", "Plain dialogue"],
  which_task: ["哪个任务", "Which task"], which_scenario: ["和谁对话", "Whom to talk to"],
  shots: ["先给模型看 {n} 个例题", "Show the model {n} solved examples first"], send: ["续写", "Write"], say: ["发送", "Send"],
  stop: ["停止", "Stop"], again: ["重写", "Rewrite"], undo: ["撤销", "Undo"], more: ["继续", "Continue"], copy: ["复制", "Copy"],
  merge: ["接到开头", "Add to beginning"], use: ["选这句", "Choose"], used: ["已选", "Chosen"], try: ["试一试", "Try"],
  result: ["结果", "Result"], sample: ["第 {n} 份", "Sample {n}"], turns: ["已有对话", "The dialogue so far"],
  probabilities: ["词元概率", "Token probabilities"],
  legend: ["底色越深，模型越拿不准。点一个词元，看别的可能。", "The darker, the less certain. Select a token to see its alternatives."],
  curl: ["复制 curl", "Copy curl"], python: ["复制 Python", "Copy Python"], share: ["分享链接", "Share link"],
  alternatives: ["别的可能", "Alternatives"], instead: ["换一个，从这里接着写", "Choose one and go on from here"],
  token: ["{text}，{p}", "{text}, {p}"], newline: ["换行", "line break"], space: ["空格", "space"], ended: ["全文结束", "end of text"],
  end_length: ["到长度上限", "reached the length"], end_stop: ["写完了", "finished"],
  end_document: ["模型在此结束全文", "the model ended the text"], end_halted: ["已停止", "stopped"], end_cut: ["中断了", "interrupted"],
  made: ["{n} 个词元", "{n} tokens"], writing: ["正在写", "writing"], sampling: ["采样", "Sampling"], temperature: ["温度", "Temperature"],
  top_p: ["top-p", "Top-p"], top_k: ["top-k（0 为不限）", "Top-k (0: no limit)"], frequency_penalty: ["频率惩罚", "Frequency penalty"],
  presence_penalty: ["出现惩罚", "Presence penalty"], max_tokens: ["长度（词元）", "Length (tokens)"], n: ["同时写几份", "Samples"],
  seed: ["种子", "Seed"], drawn: ["每次随机", "new each time"], locked: ["锁定", "Lock"], reset: ["恢复默认", "Reset"],
  past: ["历史", "History"], past_where: ["只存在本浏览器里，最多 50 条。", "Kept in this browser only, 50 entries at most."],
  erase: ["全部删除", "Erase all"], erase_one: ["删除：{title}", "Erase: {title}"],
  about_model: ["{model}，上下文 {context} 个词元", "{model}, context {context} tokens"],
  count: ["{n} / {context} 词元", "{n} / {context} tokens"],
  count_over: ["{n} + {length}，比上限 {context} 多 {over} 个词元", "{n} + {length} is {over} over {context} tokens"],
  copied: ["已复制。", "Copied."],
  shared: ["链接已复制。内容全在链接里，服务器不存。", "Link copied. It holds everything; the server stores nothing."],
  not_copied: ["浏览器不让复制。", "The browser does not allow copying."], bad_link: ["链接不完整，读不出来。", "This link is damaged."],
  key_title: ["需要密钥", "A key is needed"], key_why: ["这台服务器要密钥才能用。", "This server answers only with a key."],
  key_wrong: ["服务器不认这个密钥，请再填一次。", "The server does not know this key. Please try again."], key: ["密钥", "Key"],
  key_where: ["只存在这个标签页里，关掉就没了。", "Kept in this tab only, until it is closed."], key_use: ["使用", "Use"],
  leave: ["取消", "Cancel"], forget: ["忘掉密钥", "Forget the key"], retry: ["再试一次", "Try again"],
  shorten: ["把长度改成 {n}", "Set the length to {n}"], error: ["出错了：{message}", "Something went wrong: {message}"],
  error_queue_full: ["排队的人太多，请在 {seconds} 秒后再试。", "Too many people are waiting. Try again in {seconds} s."],
  error_rate_limit_exceeded: ["这个密钥用得太快，请在 {seconds} 秒后再试。", "This key asks too often. Try again in {seconds} s."],
  error_context_length_exceeded: ["太长了：已有 {n} 个词元，还要写 {length} 个，比上限 {context} 多了 {over} 个。", "Too long: {n} tokens so far and {length} to write are {over} more than the {context} the model can hold."],
  error_invalid_api_key: ["没有密钥或密钥不对，服务器没有回答。", "The key is missing or wrong, so the server did not answer."],
  error_model_not_allowed: ["这个密钥不能用这个模型。", "This key may not use this model."],
  error_loading: ["模型正在载入，请稍候，本页会自己继续。", "The model is loading. This page will go on by itself."],
  error_draining: ["服务器正要重启，请在 {seconds} 秒后再试。", "The server is about to restart. Try again in {seconds} s."],
  error_engine_lost: ["模型进程出了问题，正在重新启动，请在 {seconds} 秒后再试。", "The model's process failed and is being restarted. Try again in {seconds} s."],
  error_unreachable: ["连不上服务器。它还在运行吗？", "The server cannot be reached. Is it running?"],
  error_cut: ["回答到一半断了，已写的还在。", "The connection broke during the answer. What was written is kept."],
  error_empty: ["先写点什么。", "Write something first."],
  error_internal_error: ["服务器内部出错，请看它的日志。", "The server failed. Its log says more."],
};

/** What one click tries. The model was trained on Chinese, so these are Chinese in both languages. */
export const OPENINGS = ["却说曹操", "中国的首都是", "床前明月光，", "春天来了，小河边"];
export const GREETINGS = ["你好，你是谁？", "今天吃点什么好呢？", "给我讲个三国的故事吧。"];

let language = "zh";

/** The language of the page, "zh" or "en". */
export const spoken = () => language;

/** Chooses the language and puts its words into every element that names them. */
export function speak(chosen) {
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = say(element.getAttribute("data-words"));
  for (const element of document.querySelectorAll("[data-label]")) element.ariaLabel = say(element.getAttribute("data-label"));
}

/** The words of a key, with `{name}` replaced. */
export const say = (key, values = {}) =>
  WORDS[key][language === "zh" ? 0 : 1].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));

/** Whether there are words of a key. */
export const has = (key) => Object.hasOwn(WORDS, key);

/** The text of this language. */
export const local = (text) => text?.[language] ?? text?.en ?? "";
