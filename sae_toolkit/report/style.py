"""The colours of page and figures: one set of names, two themes, readable without colour vision.

Series follow Okabe & Ito (2008, "Color Universal Design"), darkened on light and lightened on dark ground until each
has a contrast of 3:1 for lines and 4.5:1 where it carries text. Figures are drawn in sentinel colours that become
`var(--name)`, so that one drawing serves both themes.
"""

LIGHT = {
    "page": "#f7f7f4",
    "surface": "#ffffff",
    "sunken": "#f0f0ec",
    "ink": "#1d2125",
    "muted": "#5a626b",
    "grid": "#dcdcd5",
    "accent": "#00588c",
    "good": "#00664b",
    "good-ground": "#e2f3ec",
    "bad": "#a33a00",
    "bad-ground": "#fdece2",
    "series-1": "#0072b2",
    "series-2": "#c65400",
    "series-3": "#00855f",
    "series-4": "#b0508a",
    "series-5": "#946200",
    "series-6": "#5b61c9",
    "floor": "#7a828b",
    "opponent": "#3d444b",
    "ceiling": "#5a626b",
    "positive": "#00588c",
    "negative": "#c65400",
    "shade": "#7cc7f0",
    "shade-negative": "#ffbe8a",
}
DARK = {
    "page": "#14171a",
    "surface": "#1c2024",
    "sunken": "#252a2f",
    "ink": "#eceeef",
    "muted": "#a6aeb6",
    "grid": "#3a4148",
    "accent": "#7cc4f2",
    "good": "#5fd3ad",
    "good-ground": "#12332a",
    "bad": "#ffa873",
    "bad-ground": "#432413",
    "series-1": "#56b4e9",
    "series-2": "#ff8f4f",
    "series-3": "#35c79a",
    "series-4": "#e79bc8",
    "series-5": "#e6b13c",
    "series-6": "#a3a8ff",
    "floor": "#98a1aa",
    "opponent": "#cdd2d6",
    "ceiling": "#a6aeb6",
    "positive": "#6dc0f5",
    "negative": "#ff9a5c",
    "shade": "#17567f",
    "shade-negative": "#7a3a10",
}
N_SERIES = 6

SENTINEL = {name: f"#0b{index:02x}7d" for index, name in enumerate(LIGHT)}
"""Colours that matplotlib draws in: no drawing would choose them, so replacing them hits nothing else."""


def series(index: int) -> str:
    """The sentinel of the index-th SAE, the same in every figure; colours repeat after six."""
    return SENTINEL[f"series-{index % N_SERIES + 1}"]


def line_style(index: int) -> str:
    """Solid for the first six series, then dashed, dotted, ... where colours repeat."""
    return ("-", "--", ":", "-.")[index // N_SERIES % 4]


def css_variables() -> str:
    """Both themes: the system's choice, unless `data-theme` on the root says otherwise."""
    light = "color-scheme: light; --picture: none; " + declarations(LIGHT)
    dark = "color-scheme: dark; --picture: brightness(1.5) saturate(1.15); " + declarations(DARK)
    return (
        f":root {{ {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ "
        f":root:not([data-theme=light]) {{ {dark} }} }}\n"
        f":root[data-theme=dark] {{ {dark} }}\n"
        f"@media print {{ :root:root {{ {light} }} }}\n"
    )


def declarations(colours: dict[str, str]) -> str:
    """One theme as CSS custom properties."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
