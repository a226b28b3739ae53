// What a page is asked by the tests; each returns the offenders, so that an empty list is good.
({
  // Controls, pictures and tables that a screen reader could not name.
  nameless() {
    const visible = (element) => element.checkVisibility();
    const words = (ids) => ids.split(/\s+/).map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim();
    const named = (element) => Boolean(
      element.getAttribute("aria-label")?.trim()
      || (element.hasAttribute("aria-labelledby") && words(element.getAttribute("aria-labelledby")))
      || element.labels?.[0]?.textContent.trim()
      || (element.matches("table") && element.caption?.textContent.trim())
      || (element.matches("a, button, summary") && element.textContent.trim()));
    const asked = "a[href], button, input, select, textarea, summary, table, [role=img], [role=region], article, nav, dialog[open], form[role]";
    return [...document.querySelectorAll(asked)].filter(visible).filter((element) => !named(element)).map((element) => element.outerHTML.slice(0, 120));
  },
  // Ids that several elements have, headings that skip a level, more than one main.
  structure() {
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    const levels = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter((heading) => heading.checkVisibility()).map((heading) => Number(heading.tagName[1]));
    const wrong = ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `id ${id}`);
    levels.forEach((level, i) => { if (level > (i ? levels[i - 1] : 0) + 1) wrong.push(`h${level} after h${levels[i - 1] ?? 0}`); });
    if (document.querySelectorAll("main").length !== 1) wrong.push("main");
    if (!document.documentElement.lang) wrong.push("lang");
    return wrong;
  },
  // Texts whose contrast with what is painted behind them is below 4.5 (3 for large ones).
  faint() {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
    const luminance = () => {
      const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((part) => part / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paint = (colour) => { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); };
    const wrong = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let checked = 0;
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (!node.data.trim() || element.closest("script, noscript, .said, .skip, :disabled") || !element.checkVisibility()) continue;
      const above = [];
      for (let one = element; one; one = one.parentElement) above.unshift(getComputedStyle(one).backgroundColor);
      paint("white");
      above.forEach(paint);
      const ground = luminance();
      const style = getComputedStyle(element);
      paint(style.color);
      const [low, high] = [ground, luminance()].sort((a, b) => a - b);
      const ratio = (high + 0.05) / (low + 0.05);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      checked += 1;
      if (ratio < (large ? 3 : 4.5)) wrong.push(`${ratio.toFixed(2)} ${node.data.trim().slice(0, 30)}`);
    }
    return checked > 20 ? wrong : [`only ${checked} texts were looked at`];
  },
  // Elements that stick out of the window and do not scroll by themselves.
  tooWide() {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    return [...document.querySelectorAll("body *")].filter((element) => element.getBoundingClientRect().right > width + 0.5 && !element.closest(".scroll")).map((element) => element.outerHTML.slice(0, 120));
  },
})
