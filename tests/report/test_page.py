import re
from dataclasses import replace

from page_checks import contrast, outline

from sae_toolkit.report import render_page
from sae_toolkit.report.style import DARK, LIGHT

HOSTILE = "<script>alert(1)</script>\"'&$\\alpha$"


def test_the_page_is_balanced_and_its_ids_are_unique(report):
    found = outline(render_page(report))
    assert len(found.ids) == len(set(found.ids)) > 10


def test_nothing_can_be_fetched(report):
    page = render_page(report)
    assert re.search(r"https?://", page) is None
    assert "@import" not in page
    assert all(re.match(r"#|data:image/png;", link) for link in outline(page).links)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*[\"']?([^)]*)", page))
    assert "default-src &#39;none&#39;" in page


def test_every_link_within_the_page_has_a_target(report):
    page = render_page(report)
    found = outline(page)
    targets = [link[1:] for link in found.links if link.startswith("#")] + re.findall(r"url\(#([^)]*)\)", page)
    assert set(targets) <= set(found.ids)


def test_hostile_names_are_text(make_report):
    page = render_page(make_report(HOSTILE))
    assert outline(page).scripts == 1
    assert "alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_only_the_packaged_script_may_run(report):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render_page(report))
    assert policy is not None
    assert re.search(r"script-src &#39;sha256-[A-Za-z0-9&#;+/=]+&#39;;", policy[1])
    assert "script-src &#39;unsafe-inline" not in policy[1]


def test_tables_and_regions_are_named(report):
    page = render_page(report)
    assert page.count("<table") == page.count("<caption>") == 6
    assert all(landmark in page for landmark in ("<main", "<nav", "<header", "<footer", 'class="skip"', 'lang="en"'))
    assert page.count('role="img"') == len(report.figures)


def test_the_best_opponent_is_marked_in_words(report):
    assert "best opponent 0.600 (k-means)" in render_page(report)


def test_what_was_left_out_is_said_by_reason(report):
    counts = {"training": {"position": 1234, "token_id": 99, "never": 0}, "evaluation": {}}
    page = render_page(replace(report, excluded=counts))
    assert "Samples left out of training: position 1,234; token_id 99." in page
    assert "Samples left out of evaluation: nothing." in page
    assert "Samples left out" not in render_page(report)


def test_sites_are_shown_where_they_were_said(report):
    assert "Site</th>" not in render_page(report)
    placed = [replace(sae, site="blocks.0.hook_resid_post") for sae in report.saes]
    assert "<code>blocks.0.hook_resid_post</code>" in render_page(replace(report, saes=placed))


def test_size_of_a_large_report(make_report):
    assert len(render_page(make_report(size=256, d_in=64)).encode()) < 1_000_000  # two SAEs; five must stay below 2 MB


def test_contrast_in_both_themes():
    for theme in (LIGHT, DARK):
        for ground in ("page", "surface", "sunken"):
            assert all(contrast(theme[text], theme[ground]) >= 4.5 for text in ("ink", "muted", "accent"))
        assert all(contrast(theme[kind], theme[f"{kind}-ground"]) >= 4.5 for kind in ("good", "bad"))
        marks = [name for name in theme if name.startswith("series")] + ["floor", "opponent", "ceiling"]
        assert all(contrast(theme[mark], theme["surface"]) >= 3 for mark in marks)
