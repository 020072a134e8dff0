// The fleet's table: filters, one page of rows, a selection. It asks for a page and shows what comes; the gateway
// filters, sorts and pages. Every value is text.

export default {
  props: { texts: Object, first: Object, may: Boolean, views: Array, tags: Array },
  template: `
<div class="fleet">
  <form class="samd-toolbar" role="search" @submit.prevent="ask()">
    <input class="samd-field grow" type="search" data-filter v-model="query.text" maxlength="100"
      :placeholder="texts.filter" :aria-label="texts.filter" @input="later()">
    <label>{{ texts.tag }} <select class="samd-field" v-model="query.tag" @change="ask()">
      <option value="">{{ texts.any }}</option><option v-for="tag in tags" :key="tag" :value="tag">{{ tag }}</option></select></label>
    <label>{{ texts.trouble }} <select class="samd-field" v-model="query.trouble" @change="ask()">
      <option value="">{{ texts.any }}</option><option v-for="one in texts.troubles" :key="one[0]" :value="one[0]">{{ one[1] }}</option></select></label>
    <label>{{ texts.model }} <input class="samd-field short" inputmode="numeric" v-model="query.model" maxlength="9" @input="later()"></label>
    <label>{{ texts.view }} <select class="samd-field" v-model="view" @change="useView()">
      <option value="">{{ texts.none }}</option><option v-for="one in views" :key="one.id" :value="one.id" :disabled="!one.whole">{{ one.whole ? one.name : one.name + " " + texts.not_whole }}</option></select></label>
    <button type="button" class="samd-button" @click="$emit('save', sent())">{{ texts.save }}</button>
    <button v-if="view" type="button" class="samd-button" @click="$emit('forget', view)">{{ texts.forget }}</button>
  </form>
  <div class="samd-toolbar" role="group" :aria-label="texts.state">
    <button v-for="one in texts.states" :key="one[0]" type="button" class="samd-button" :class="{ primary: query.states.includes(one[0]) }"
      :aria-pressed="query.states.includes(one[0]) ? 'true' : 'false'" :data-state="one[0]" @click="toggle(one[0])">
      <span aria-hidden="true">{{ one[2] }}</span> {{ one[1] }} <b>{{ page.counts[one[0]] ?? 0 }}</b></button>
    <span class="grow" role="status" data-total>{{ page.summary }}</span>
  </div>
  <div v-if="may" class="samd-toolbar" role="group" :aria-label="texts.actions">
    <span data-chosen>{{ chosen }}</span>
    <button v-if="!all && page.total > page.rows.length" type="button" class="samd-button" @click="all = true">{{ texts.all_matching }}</button>
    <button v-if="all || selected.length" type="button" class="samd-button" @click="all = false; selected = []">{{ texts.clear }}</button>
    <button v-for="one in texts.kinds" :key="one[0]" type="button" class="samd-button" :disabled="!all && !selected.length"
      :data-bulk="one[0]" @click="$emit('bulk', { kind: one[0], all, names: selected, query: sent() })">{{ one[1] }}</button>
  </div>
  <div class="samd-scroll"><table class="samd-table fleet-table">
    <caption class="visually-hidden">{{ texts.caption }}</caption>
    <thead><tr>
      <th v-if="may"><input type="checkbox" :aria-label="texts.page_all" :checked="pageChosen" @change="choosePage($event.target.checked)"></th>
      <th v-for="one in texts.columns" :key="one[0]" scope="col" :aria-sort="sorted(one)">
        <button v-if="one[2]" type="button" class="sort" @click="sort(one[2])">{{ one[1] }} <span aria-hidden="true">{{ arrow(one) }}</span></button>
        <template v-else>{{ one[1] }}</template></th></tr></thead>
    <tbody><tr v-for="row in page.rows" :key="row.name" :data-device="row.name" :class="'is-' + row.state">
      <td v-if="may"><input type="checkbox" :aria-label="row.name" :value="row.name" v-model="selected" :disabled="all"></td>
      <th scope="row"><a :href="'/device/' + encodeURIComponent(row.name)">{{ row.name }}</a></th>
      <td v-for="(cell, n) in row.cells" :key="n">{{ cell[0] }}<span v-if="cell[1]" class="samd-note"><br>{{ cell[1] }}</span></td></tr>
      <tr v-if="!page.rows.length"><td :colspan="texts.columns.length + 1">{{ texts.nothing }}</td></tr></tbody></table></div>
  <nav class="samd-toolbar" :aria-label="texts.pages">
    <button type="button" class="samd-button" :disabled="!before.length" @click="back()">{{ texts.previous }}</button>
    <button type="button" class="samd-button" :disabled="!page.next" @click="forth()">{{ texts.next }}</button></nav>
</div>`,

  data() {
    return {
      page: { rows: [], counts: {}, total: 0, next: null, summary: "" },
      query: { text: "", tag: "", trouble: "", model: "", states: [], sort: "state", descending: false, ...this.first },
      view: "", before: [], after: null, selected: [], all: false, timer: null,
    };
  },
  computed: {
    chosen() {
      return this.texts.chosen.replace("{n}", this.all ? this.page.total : this.selected.length);
    },
    pageChosen() {
      return this.page.rows.length > 0 && this.page.rows.every((row) => this.selected.includes(row.name));
    },
  },
  mounted() {
    this.ask();
  },
  methods: {
    sent() {
      return { ...this.query, after: this.after };
    },
    /** A page from its beginning, as the filter is now. */
    ask() {
      clearTimeout(this.timer);
      this.before = [];
      this.after = null;
      this.all = false;
      this.$emit("asked", this.sent());
    },
    later() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(), 150);
    },
    toggle(state) {
      const there = this.query.states.includes(state);
      this.query.states = there ? this.query.states.filter((one) => one !== state) : [...this.query.states, state];
      this.ask();
    },
    sort(key) {
      this.query.descending = this.query.sort === key ? !this.query.descending : false;
      this.query.sort = key;
      this.ask();
    },
    sorted(column) {
      if (column[2] !== this.query.sort || !column[2]) return null;
      return this.query.descending ? "descending" : "ascending";
    },
    arrow(column) {
      return column[2] === this.query.sort ? (this.query.descending ? "▼" : "▲") : "";
    },
    forth() {
      this.before.push(this.after);
      this.after = this.page.next;
      this.$emit("asked", this.sent());
    },
    back() {
      this.after = this.before.pop() ?? null;
      this.$emit("asked", this.sent());
    },
    choosePage(on) {
      const names = this.page.rows.map((row) => row.name);
      this.selected = on ? [...new Set([...this.selected, ...names])] : this.selected.filter((name) => !names.includes(name));
    },
    useView() {
      const view = this.views.find((one) => one.id === this.view);
      if (!view) return;
      Object.assign(this.query, view.query);
      this.ask();
    },
    show(page) {
      this.page = page;
    },
  },
};
