/** What may not be had: a stable code of section 15 of the standard, and a sentence for people. */
export class Refusal extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

/** Refuse with this code unless the condition holds. */
export function need(condition, code, text) {
  if (!condition) throw new Refusal(code, text);
}

/** Text of others as it may be shown: a terminal obeys control characters. */
export const shown = (text) => text.replace(/[^\P{Cc}\n\t]/gu, "");
