// The ward's cards in the browser. The data come from the hub by samd.cards; Vue changes only what differs, so
// that focus and selection stay where they are. Every value is put in as text.

const ORDER = [
  "respiratory_rate",
  "spo2",
  "supplemental_oxygen",
  "systolic_bp",
  "heart_rate",
  "consciousness",
  "temperature",
];
const CLASSES = ["0", "1–4", "5–6", "≥ 7"];
const BANDS = ["low", "low-medium", "medium", "high"];
const MODES = ["cards", "compact", "wall"];
const FIRST = 60;
const HOURS = 24;

const compare = (a, b) => {
  for (let i = 0; i < a.risk.length; i++) if (a.risk[i] !== b.risk[i]) return b.risk[i] - a.risk[i];
  return (a.bed || a.device).localeCompare(b.bed || b.device, undefined, { numeric: true });
};

export default {
  template: `
<div class="ward" :data-mode="mode">
  <div v-if="!only" class="samd-toolbar" role="search">
    <input ref="filter" class="samd-field grow" type="search" v-model="filter" :placeholder="t('ward.filter')"
      :aria-label="t('ward.filter')" maxlength="64" @keydown.esc="filter = ''">
    <label v-if="wards.length > 1 || ward"><span class="visually-hidden">{{ t('ward.ward') }}</span>
      <select class="samd-field" v-model="ward" :aria-label="t('ward.ward')">
        <option value="">{{ t('ward.all_wards') }}</option>
        <option v-for="one in wards" :key="one" :value="one">{{ one }}</option>
      </select></label>
    <label><span class="visually-hidden">{{ t('ward.mode') }}</span>
      <select class="samd-field" v-model="mode" :aria-label="t('ward.mode')">
        <option v-for="one in modes" :key="one" :value="one">{{ t('ward.modes.' + one) }}</option>
      </select></label>
    <ul class="ward-counts" :aria-label="t('ward.counts')">
      <li v-for="count in counts" :key="count.level" :class="'level-' + count.level">
        <svg class="shape" viewBox="0 0 24 24" aria-hidden="true"><path :d="shape(count.level)" /></svg>
        {{ t('ward.levels.' + count.level) }} <b>{{ count.n }}</b></li>
    </ul>
  </div>
  <p v-if="!shown.length" class="samd-card ward-empty">{{ t(all.length ? 'ward.none_match' : 'ward.empty') }}</p>
  <ol v-else class="ward-cards" :aria-label="t('ward.cards')">
    <li v-for="card in shown" :key="card.device">
      <article class="ward-card" :class="'level-' + card.level" :data-device="card.device"
        :aria-labelledby="'name-' + card.device">
        <header>
          <svg class="shape" viewBox="0 0 24 24" aria-hidden="true"><path :d="shape(card.level)" /></svg>
          <h2 :id="'name-' + card.device">
            <component :is="only ? 'span' : 'a'" class="name" :href="only ? null : '/patient/' + encodeURIComponent(card.device)">{{ card.bed || card.device }}</component>
          </h2>
          <span class="who">{{ who(card) }}</span>
          <span v-if="card.spo2_scale === 2" class="tag">{{ t('ward.scale_2') }}</span>
        </header>
        <div class="ward-score">
          <span class="score" :class="{ range: card.news2 && card.news2.total === null }">{{ card.score }}</span>
          <span class="band">
            <span class="word">{{ card.word }}</span>
            <span v-if="card.upTo" class="up-to">{{ t('ward.up_to', { level: t('ward.levels.' + card.upTo) }) }}</span>
            <span v-if="card.last" class="up-to">{{ card.last }}</span>
            <span class="what">NEWS2<template v-if="card.current && card.news2 && card.news2.missing.length"> · {{ t('ward.incomplete') }}</template></span>
          </span>
        </div>
        <p v-if="card.why" class="ward-warning"><span aria-hidden="true">◇</span> {{ card.why }}</p>
        <p v-else-if="card.state !== 'online'" class="ward-warning"><span aria-hidden="true">◇</span> {{ t('ward.states.' + card.state) }}: {{ stateReason(card) }}</p>

        <ul v-if="card.news2" class="ward-points" :class="{ past: !card.current }" :aria-label="t('ward.points')">
          <li v-for="point in card.points" :key="point.name" :class="point.classes" :title="point.title">
            <span class="sign">{{ point.short }}</span>
            <span class="value">{{ point.text }}</span>
            <span v-if="point.raw" class="raw">{{ point.raw }}</span>
            <span class="visually-hidden">{{ point.title }}</span>
          </li>
        </ul>

        <dl class="ward-facts" :class="{ past: !card.current }">
          <div v-if="card.news2"><dt>{{ t('ward.rule') }}</dt><dd>{{ classes(card.rule_severity, card.rule_severity_possible) }}</dd></div>
          <div v-if="card.news2"><dt>{{ t('ward.model') }}</dt>
            <dd v-if="card.model">{{ names[card.model.severity] }} <span class="soft">({{ percent(card.model.probabilities[card.model.severity]) }}, v{{ card.model.version }}<template v-if="card.model.personal">, {{ t('ward.personal') }}</template>)</span>
              <b v-if="card.disagreement" class="tag strong">≠ {{ t('ward.disagreement') }}</b></dd>
            <dd v-else class="soft">{{ t('ward.no_model') }}</dd></div>
          <div v-if="card.deterioration"><dt>{{ t('ward.deterioration', { h: card.deterioration.horizon_h }) }}</dt>
            <dd>{{ ahead(card.deterioration) }}</dd></div>
        </dl>

        <svg v-if="card.line" class="ward-trend" viewBox="0 0 240 48" preserveAspectRatio="none" role="img" :aria-label="card.line.label">
          <line v-for="y in card.line.marks" :key="y" x1="0" x2="240" :y1="y" :y2="y" class="mark" />
          <path :d="card.line.area" class="area" /><path v-for="(d, n) in card.line.paths" :key="n" :d="d" class="line" />
        </svg>

        <dl class="ward-times">
          <div><dt>{{ t('ward.last_reading') }}</dt>
            <dd>{{ card.read_at === null ? t('ward.never') : t('ward.ago', { age: age(at - card.read_at) }) }}</dd></div>
          <div v-if="card.news2" :class="{ overdue: card.overdue }"><dt>{{ t('ward.next') }}</dt><dd>{{ due(card) }}</dd></div>
        </dl>

        <p v-if="card.alert" class="ward-alert" :class="{ waiting: waiting(card.alert) }">
          <span aria-hidden="true">{{ waiting(card.alert) ? '●' : '○' }}</span> {{ alertText(card.alert) }}</p>

        <footer v-if="actions" class="ward-actions">
          <button v-if="card.alert && !card.alert.acknowledged" type="button" class="samd-button primary" data-do="acknowledge"
            :aria-label="t('ward.acknowledge_of', { who: name(card) })" @click="act('acknowledge', card)">{{ t('ward.acknowledge') }}</button>
          <button type="button" class="samd-button" data-do="observe" :aria-label="t('ward.observe_of', { who: name(card) })"
            @click="act('observe', card)">{{ t('ward.observe') }}</button>
          <button type="button" class="samd-button" data-do="actions" :aria-label="t('ward.actions_of', { who: name(card) })"
            @click="act('actions', card)">{{ t('ward.actions') }}</button>
        </footer>
      </article>
    </li>
  </ol>
  <p v-if="!only && of > all.length" class="ward-more">{{ t('ward.of', { n: all.length, total: of }) }}</p>
  <p v-if="hidden" class="ward-more"><button type="button" class="samd-button" @click="most += 60">{{ t('ward.more', { n: hidden }) }}</button></p>
  <p class="visually-hidden" role="status">{{ spoken }}</p>
</div>`,

  props: { texts: Object, cards: Array, total: Number, actions: Boolean, only: String },

  data() {
    const asked = new URLSearchParams(location.search);
    const kept = this.only ? "cards" : (asked.get("mode") ?? localStorage.getItem("samd-ward-mode"));
    return {
      all: [],
      at: samd.now(),
      filter: asked.get("q") ?? "",
      ward: asked.get("ward") ?? "",
      mode: MODES.includes(kept) ? kept : "cards",
      modes: MODES,
      names: CLASSES,
      most: FIRST,
      of: this.total,
      spoken: "",
    };
  },

  created() {
    samd.learn(this.texts);
    this.built = new Map();
    const { cards, stop } = samd.watch((message) => this.take(message));
    // what the page was made with; what has arrived since stands above it
    for (const card of this.cards) if (!cards.has(card.device)) cards.set(card.device, card);
    this.store = cards;
    this.take(null);
    this.stops = [
      stop,
      samd.everySecond((at) => {
        this.at = at;
      }),
    ];
    if (!this.only) this.shortcuts();
    else if (this.actions) {
      for (const [key, kind] of [["o", "observe"], ["x", "actions"], ["a", "acknowledge"]]) {
        this.stops.push(samd.shortcut(key, `shell.help.${kind}`, () => this.shown[0] && this.act(kind, this.shown[0])));
      }
    }
  },
  unmounted() {
    for (const stop of this.stops) stop();
  },
  mounted() {
    document.documentElement.dataset.wardMode = this.mode;
  },

  computed: {
    wards() {
      return [...new Set(this.all.map((card) => card.ward).filter(Boolean))].sort();
    },
    matching() {
      const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
      return this.all.filter((card) => {
        if (this.ward && card.ward !== this.ward) return false;
        const text = `${card.bed} ${card.ward} ${card.device} ${card.pseudonym ?? ""}`.toLowerCase();
        return words.every((word) => text.includes(word));
      });
    },
    shown() {
      return this.matching.slice(0, this.only ? 1 : this.most);
    },
    hidden() {
      return this.matching.length - this.shown.length;
    },
    counts() {
      return ["high", "medium", "unknown", "low-medium", "open", "low"]
        .map((level) => ({ level, n: this.matching.filter((card) => card.level === level).length }))
        .filter((count) => count.n);
    },
  },

  watch: {
    counts(counts, before) {
      if (this.only || JSON.stringify(counts) === JSON.stringify(before)) return;
      this.spoken = counts.map((count) => `${this.t(`ward.levels.${count.level}`)} ${count.n}`).join(", ");
    },
    mode(mode) {
      localStorage.setItem("samd-ward-mode", mode);
      document.documentElement.dataset.wardMode = mode;
      this.address();
    },
    ward() {
      this.address();
    },
    filter() {
      this.most = FIRST;
    },
  },

  methods: {
    t(key, values) {
      return samd.t(key, values);
    },
    age(seconds) {
      return samd.age(seconds);
    },
    take(message) {
      if (message?.total !== undefined) this.of = message.total;
      const names = message && !message.whole ? message.cards.map((card) => card.device) : [...this.store.keys()];
      for (const name of names) this.built.set(name, this.build(this.store.get(name)));
      for (const name of this.built.keys()) if (!this.store.has(name)) this.built.delete(name);
      const all = [...this.built.values()].filter((card) => !this.only || card.device === this.only);
      this.all = all.sort(compare);
    },
    /** What is shown of a card beside its own figures; made once a change. */
    build(card) {
      const made = { ...card, level: "unknown", score: "?", word: this.t("ward.levels.unknown"), upTo: "", last: "" };
      made.why = card.why_not_current ? this.because(card.why_not_current) : "";
      const news2 = card.news2;
      if (news2) {
        const score = news2.total === null ? `${news2.low}–${news2.high}` : String(news2.total);
        if (card.current) {
          made.level = BANDS.includes(news2.band) ? news2.band : "unknown";
          made.score = score;
          made.word = this.t(`ward.levels.${made.level}`);
          const possible = ["low", "low", "medium", "high"][card.rule_severity_possible];
          if (BANDS.indexOf(possible) > BANDS.indexOf(made.level)) made.upTo = possible;
          // what is missing may hide a patient who needs somebody: that is no green card
          if (made.upTo && made.level === "low") made.level = "open";
        } else {
          made.word = this.t("ward.no_score");
          made.last = this.t("ward.last_score", { score });
        }
        made.points = this.pointsOf(card);
        made.line = this.lineOf(card);
      } else if (!made.why) made.why = this.t("ward.not_current.none");
      return Object.freeze(made);
    },
    pointsOf(card) {
      const { points, missing } = card.news2;
      return ORDER.map((name) => {
        const sign = this.t(`ward.signs.${name}`);
        const lacks = missing.includes(name) || !(name in points);
        const said = lacks ? this.t("ward.missing") : this.t("ward.n_points", { n: points[name] });
        const notes = [];
        if (card.stale.includes(name)) notes.push(this.t("ward.stale"));
        if (card.artefacts[name]) notes.push(this.t(`ward.artefacts.${card.artefacts[name]}`));
        if (card.due.includes(name)) notes.push(this.t("ward.due"));
        return {
          name,
          short: this.t(`ward.short.${name}`),
          text: lacks ? "?" : String(points[name]),
          raw: card.signs && card.signs[name] !== undefined && card.signs[name] !== null ? this.raw(card.signs[name]) : "",
          title: `${sign}: ${[said, ...notes].join(", ")}`,
          classes: { lacks, noted: notes.length > 0, [`p${points[name] ?? 0}`]: !lacks },
        };
      });
    },
    raw(value) {
      if (value === true) return this.t("ward.yes");
      if (value === false) return this.t("ward.no");
      return typeof value === "number" ? String(Math.round(value * 10) / 10) : String(value);
    },
    lineOf(card) {
      if (card.trend.length < 2) return null;
      const end = Math.max(samd.now(), card.trend.at(-1)[0]);
      const begin = end - HOURS * 3600;
      const most = Math.max(9, ...card.trend.map((point) => point[2]));
      const x = (at) => Math.max(0, ((at - begin) / (end - begin)) * 240);
      const y = (score) => 46 - (score / most) * 44;
      const spans = card.trend.slice(1).map((point, n) => point[0] - card.trend[n][0]);
      const usual = Math.max(1800, 4 * [...spans].sort((a, b) => a - b)[Math.floor(spans.length / 2)]);
      const parts = [[]];
      card.trend.forEach((point, n) => {
        if (n && spans[n - 1] > usual) parts.push([]); // a gap is a gap
        parts.at(-1).push(point);
      });
      const step = (part, which, from) =>
        part.map((p, n) => (n ? `H${x(p[0]).toFixed(1)}V${y(p[which]).toFixed(1)}` : `${from}${x(p[0]).toFixed(1)} ${y(p[which]).toFixed(1)}`)).join("");
      const back = (part) =>
        [...part].reverse().map((p, n, all) => (n ? `V${y(p[1]).toFixed(1)}H${x(p[0]).toFixed(1)}` : `L${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`)).join("");
      const lows = card.trend.map((point) => point[1]);
      const highs = card.trend.map((point) => point[2]);
      return {
        marks: [5, 7].map(y),
        area: parts.map((part) => `${step(part, 2, "M")}${back(part)}Z`).join(""),
        paths: parts.flatMap((part) => [step(part, 1, "M"), step(part, 2, "M")]),
        label: this.t("ward.trend", { low: Math.min(...lows), high: Math.max(...highs), h: HOURS }),
      };
    },
    shape(level) {
      return {
        high: "M7.6 1h8.8L23 7.6v8.8L16.4 23H7.6L1 16.4V7.6z", // octagon
        medium: "M12 1.5 23.5 22H.5z", // triangle
        "low-medium": "M12 .5 23.5 12 12 23.5.5 12z", // diamond
        low: "M12 1a11 11 0 1 0 0 22 11 11 0 0 0 0-22z", // disc
        open: "M12 1a11 11 0 1 0 0 22 11 11 0 0 0 0-22zm0 3a8 8 0 0 1 0 16z", // half a disc
        unknown: "M12 1a11 11 0 1 0 0 22 11 11 0 0 0 0-22zm0 3a8 8 0 1 1 0 16 8 8 0 0 1 0-16z", // ring
      }[level];
    },
    who(card) {
      return [card.bed ? card.device : "", card.pseudonym ?? "", card.ward, card.admission_state === "pending" ? this.t("ward.pending") : ""]
        .filter(Boolean)
        .join(" · ");
    },
    name(card) {
      return card.bed || card.device;
    },
    because(why) {
      const values = { ...why.arguments };
      for (const key of ["age_s", "limit_s"]) if (key in values) values[key.slice(0, -2)] = samd.age(values[key]);
      const said = samd.t(why.key, values);
      return said === why.key ? why.text : said;
    },
    stateReason(card) {
      return card.state_reason;
    },
    classes(low, high) {
      return low === high ? CLASSES[low] : this.t("ward.class_range", { low: CLASSES[low], high: CLASSES[high] });
    },
    percent(value) {
      return value > 0 && value < 0.01 ? "< 1 %" : value < 1 && value > 0.99 ? "> 99 %" : `${Math.round(value * 100)} %`;
    },
    ahead(said) {
      if (said.probability === null) return this.t("ward.not_asked", { reason: said.reason ?? "" });
      const possible = said.possible.map((one) => this.t(`ward.possible.${one}`)).join(" / ");
      const which =
        said.possible.length === 1
          ? this.t("ward.only_possible", { possible })
          : said.possible.length === 2
            ? this.t("ward.both_possible")
            : this.t("ward.none_possible");
      const uncalibrated = said.calibration === "none" ? `, ${this.t("ward.uncalibrated")}` : "";
      return `${this.percent(said.probability)} (${which}${uncalibrated}; ${samd.clock(Date.parse(said.asked_at) / 1000)})`;
    },
    due(card) {
      if (card.overdue)
        return card.due_at === null ? this.t("ward.overdue_now") : this.t("ward.overdue", { age: samd.age(this.at - card.due_at) });
      if (card.due_at === null) return this.t("ward.continuous");
      return this.t("ward.due_in", { age: samd.age(card.due_at - this.at) });
    },
    waiting(alert) {
      return !alert.acknowledged && !alert.paused;
    },
    alertText(alert) {
      const kind = alert.kind === "silence" ? this.t("ward.alert.silence") : this.t("ward.alert.severity", { severity: CLASSES[alert.severity] });
      const since = this.t("ward.alert.since", { time: samd.clock(Date.parse(alert.raised_at) / 1000) });
      const step = alert.step > 0 ? ` · ${this.t("ward.alert.step", { step: alert.step })}` : "";
      if (alert.paused) {
        const until = alert.paused_until ? samd.clock(Date.parse(alert.paused_until) / 1000) : "";
        return `${kind} ${since} · ${this.t("ward.alert.paused", { until, user: alert.paused_by ?? "", reason: alert.pause_reason ?? "" })}${step}`;
      }
      if (alert.acknowledged) return `${kind} ${since} · ${this.t("ward.alert.acknowledged", { user: alert.acknowledged_by ?? "" })}${step}`;
      return `${kind} ${since} · ${this.t("ward.alert.waiting")}${step}`;
    },
    act(kind, card) {
      this.$emit("act", { kind, device: card.device, alert: card.alert?.id ?? null, severity: card.alert?.severity ?? null });
    },
    address() {
      const wanted = new URLSearchParams(location.search);
      for (const [key, value] of [["ward", this.ward], ["mode", this.mode === "cards" ? "" : this.mode]]) {
        if (value) wanted.set(key, value);
        else wanted.delete(key);
      }
      const text = wanted.toString();
      history.replaceState(history.state, "", text ? `?${text}` : location.pathname);
    },
    shortcuts() {
      const of = () => document.activeElement?.closest?.(".ward-card");
      const move = (by) => {
        const there = [...this.$el.querySelectorAll(".ward-card")];
        const place = there.indexOf(of());
        const next = there[Math.min(Math.max(place + by, 0), there.length - 1)];
        next?.querySelector("a.name")?.focus();
        next?.scrollIntoView({ block: "nearest" });
      };
      const press = (what) => (of() ?? this.$el.querySelector(".ward-card"))?.querySelector(`[data-do=${what}]`)?.click();
      this.stops.push(
        samd.shortcut("/", "shell.help.filter", () => this.$refs.filter.focus()),
        samd.shortcut("j", "shell.help.next", () => move(1)),
        samd.shortcut("k", "shell.help.previous", () => move(-1)),
        samd.shortcut("v", "shell.help.mode", () => {
          this.mode = MODES[(MODES.indexOf(this.mode) + 1) % MODES.length];
        }),
      );
      if (this.actions)
        this.stops.push(
          samd.shortcut("a", "shell.help.acknowledge", () => press("acknowledge")),
          samd.shortcut("o", "shell.help.observe", () => press("observe")),
          samd.shortcut("x", "shell.help.actions", () => press("actions")),
        );
    },
  },
};
