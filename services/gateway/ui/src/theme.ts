// Light or dark: as the system says, unless somebody chose here.
import { useState } from "react";
import type { IconName } from "./parts/icons";

export type Theme = "system" | "light" | "dark";
export const THEMES: { id: Theme; title: string; icon: IconName }[] = [
  { id: "light", title: "Light", icon: "sun" },
  { id: "dark", title: "Dark", icon: "moon" },
  { id: "system", title: "As the system", icon: "system" },
];
const KEY = "faas-theme";

export function chosen(): Theme {
  try {
    const kept = window.localStorage.getItem(KEY);
    return kept === "light" || kept === "dark" ? kept : "system";
  } catch {
    return "system"; // storage may be refused
  }
}

export function apply(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
}

export function useTheme(): [Theme, (theme: Theme) => void] {
  const [theme, setTheme] = useState(chosen);
  return [
    theme,
    (next) => {
      setTheme(next);
      apply(next);
      try {
        window.localStorage.setItem(KEY, next);
      } catch {
        // it holds for this visit
      }
    },
  ];
}
