"use strict";
(() => {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("sae-report-theme"); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem("sae-report-theme", theme); } catch { /* private window */ } };
  const systemIsDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  const isDark = () => (root.dataset.theme || (systemIsDark() ? "dark" : "light")) === "dark";
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();

  document.addEventListener("DOMContentLoaded", () => {
    const toggle = document.getElementById("theme");
    const label = () => { toggle.textContent = isDark() ? "Light theme" : "Dark theme"; };
    toggle.hidden = false;
    label();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
    toggle.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      store(root.dataset.theme);
      label();
    });
  });
})();
