// The texts in the language that was asked for; English where there is no file of it.

import english from "./texts.js";

async function find() {
  const asked = new URLSearchParams(location.search).get("lang");
  for (const tag of asked ? [asked] : navigator.languages) {
    const lang = tag.toLowerCase().split("-")[0];
    if (lang === "en" || !/^[a-z]{2,3}$/.test(lang)) break;
    try {
      const found = (await import(`./texts.${lang}.js`)).default;
      document.documentElement.lang = lang;
      return { ...english, ...found };
    } catch {
      continue; // nobody has translated the page to it
    }
  }
  return english;
}

export const texts = await find();

/** What a field of the model, or a word of its vocabulary, is called. */
export const called = (name) => texts.names[name] ?? name;
export const worded = (word) => texts.words[word] ?? word;
