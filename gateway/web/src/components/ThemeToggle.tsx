import { useState } from "react";

type Theme = "auto" | "light" | "dark";
const NEXT: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };
const WORDS: Record<Theme, string> = { auto: "as the system", light: "light", dark: "dark" };
const KEY = "headrace-theme";

function stored(): Theme {
  const theme = document.documentElement.dataset.theme;
  return theme === "light" || theme === "dark" ? theme : "auto";
}

function choose(theme: Theme): void {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "auto") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Storage is forbidden: the choice lasts as long as the page.
  }
}

export function ThemeToggle() {
  const [theme, setTheme] = useState(stored);
  const toggle = () => {
    choose(NEXT[theme]);
    setTheme(NEXT[theme]);
  };
  return (
    <button type="button" className="quiet theme" onClick={toggle} title={`Theme: ${WORDS[theme]}`}>
      <svg viewBox="0 0 20 20" width="16" height="16" aria-hidden="true">
        <circle cx="10" cy="10" r="7.25" fill="none" stroke="currentColor" strokeWidth="1.5" />
        {theme !== "light" && (
          <path d={theme === "dark" ? "M10 2.75a7.250 7.250 0 0 0 0 14.500a7.250 7.250 0 0 0 0-14.500" : "M10 2.75a7.250 7.250 0 0 1 0 14.500z"} fill="currentColor" />
        )}
      </svg>
      <span className="unseen">Theme: {WORDS[theme]}</span>
    </button>
  );
}
