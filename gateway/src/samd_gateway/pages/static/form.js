// A dialog made of a description: fields, or a menu of what can be done. The browser's own <dialog> and fields,
// so that keyboard, focus and screen readers work as everywhere. What is sent is checked at the gateway.

export default {
  template: `
<dialog ref="dialog" class="samd-form" aria-labelledby="samd-form-title" @cancel="closed" @close="closed">
  <form v-if="form" method="dialog" @submit.prevent="send" :key="form.id" novalidate>
    <h2 id="samd-form-title">{{ form.title }}</h2>
    <p class="who">{{ form.who }}</p>
    <p v-for="(line, n) in form.lines" :key="n" class="line">{{ line }}</p>
    <div v-if="form.menu.length" class="menu">
      <button v-for="item in form.menu" :key="item.name" type="button" class="samd-button" :data-choice-of="item.name"
        @click="choose(item.name)">{{ item.label }}</button>
    </div>
    <template v-for="field in form.fields" :key="field.name">
      <fieldset v-if="field.kind === 'radio'" :aria-describedby="field.help ? 'help-' + field.name : null">
        <legend>{{ field.label }}</legend>
        <label v-for="option in field.options" :key="option.value" class="line">
          <input type="radio" :name="field.name" :value="option.value" v-model="values[field.name]" :disabled="busy || done">
          <span>{{ option.label }}</span></label>
        <p v-if="field.help" :id="'help-' + field.name" class="samd-note">{{ field.help }}</p>
      </fieldset>
      <label v-else-if="field.kind === 'checkbox'" class="line">
        <input type="checkbox" v-model="values[field.name]" :disabled="busy || done"><span>{{ field.label }}
        <span v-if="field.help" class="samd-note">{{ field.help }}</span></span></label>
      <label v-else class="stack"><span>{{ field.label }}<template v-if="field.required"> *</template></span>
        <select v-if="field.kind === 'select'" class="samd-field" v-model="values[field.name]" :name="field.name" :disabled="busy || done">
          <option v-for="option in field.options" :key="option.value" :value="option.value">{{ option.label }}</option></select>
        <textarea v-else-if="field.kind === 'long'" class="samd-field" rows="3" v-model="values[field.name]" :name="field.name"
          :maxlength="field.longest" :required="field.required" :disabled="busy || done"></textarea>
        <input v-else class="samd-field" :type="types[field.kind] ?? 'text'" v-model="values[field.name]" :name="field.name"
          :maxlength="field.longest" :required="field.required" :disabled="busy || done" autocomplete="off"
          :aria-invalid="wrong === field.name ? 'true' : null">
        <span v-if="field.help" class="samd-note">{{ field.help }}</span></label>
    </template>
    <p class="outcome" :class="tone" role="status">{{ told }}</p>
    <div class="row-end">
      <button type="button" class="samd-button" :class="{ primary: done }" ref="close" @click="close">{{ done || !form.submit ? form.close : form.cancel }}</button>
      <button v-if="form.submit && !done" type="submit" class="samd-button primary" :disabled="busy" ref="submit">{{ form.submit }}</button>
    </div>
  </form>
</dialog>`,

  data() {
    return { form: null, values: {}, told: "", tone: "", busy: false, done: false, wrong: "", types: { time: "datetime-local", number: "number", password: "password" } };
  },

  methods: {
    show(form) {
      if (!this.$refs.dialog.open) {
        this.opener = document.activeElement;
        this.card = this.opener?.closest?.("article")?.dataset.device;
      }
      this.form = form;
      this.values = Object.fromEntries(form.fields.map((field) => [field.name, field.value ?? (field.kind === "checkbox" ? false : "")]));
      Object.assign(this, { told: "", tone: "", busy: false, done: false, wrong: "" });
      this.$nextTick(() => {
        if (!this.$refs.dialog.open) this.$refs.dialog.showModal();
        this.$refs.dialog.scrollTop = 0;
        const first = this.$refs.dialog.querySelector(".menu button, [aria-invalid], input, select, textarea");
        (first ?? this.$refs.submit ?? this.$refs.close)?.focus();
      });
    },
    send() {
      if (this.busy || this.done) return;
      const lacks = this.form.fields.find((field) => field.required && !String(this.values[field.name] ?? "").trim());
      if (lacks) {
        this.wrong = lacks.name;
        this.tell(lacks.lacking, "bad");
        this.$refs.dialog.querySelector(`[name="${CSS.escape(lacks.name)}"]`)?.focus();
        return;
      }
      this.wrong = "";
      this.busy = true;
      this.tell(this.form.waiting, "");
      const values = { ...this.values };
      for (const field of this.form.fields) {
        if (field.kind !== "time") continue;
        const at = new Date(values[field.name]).getTime();
        values[field.name] = Number.isFinite(at) ? at / 1000 : null;
      }
      this.$emit("send", { id: this.form.id, values });
    },
    choose(name) {
      this.$emit("choose", { id: this.form.id, name });
    },
    tell(text, tone) {
      this.told = text;
      this.tone = tone;
    },
    /** What became of it. After success nothing is left to do but to close. */
    outcome(id, text, good) {
      if (!this.form || this.form.id !== id) return;
      this.busy = false;
      this.done = good;
      this.tell(text, good ? "good" : "bad");
      this.$nextTick(() => (good ? this.$refs.close : this.$refs.submit)?.focus());
    },
    close() {
      this.$refs.dialog.close();
    },
    closed() {
      if (!this.form) return;
      this.$emit("closed", { id: this.form.id });
      this.form = null;
      const opener = this.opener;
      this.opener = null;
      // what opened it may be gone, as there is nothing left to acknowledge: then the next control of its card
      const card = this.card ?? "";
      this.$nextTick(() => {
        const next = opener?.isConnected ? opener : document.querySelector(`article[data-device="${CSS.escape(card)}"] button`);
        (next ?? document.getElementById("main"))?.focus();
      });
    },
  },
};
