"""HTML of descriptions: what of it is kept, and its text."""

import pytest

from feed.model.html import sanitised, text_of

LINKS = 'rel="noopener nofollow ugc"'
WHOLE = """<section class="x"><h1 id=top>Über uns</h1><p style="color:red">Brot &amp; <b title=x>Butter</b>,<br>frisch.</p>
<ul>
  <li>erstens</li>
  <li><p>zweitens, <a href="https://a.example/?a=1&b=2" target=_top onclick=go()>hier</a></p></li><li> </li>
</ul><table><tr><th>Tag<th>Zeit</tr><tr><td><p>Mo</p></td><td>&lt; 9</td></tr></table></section>
<div>eins</div><div>zwei</div>"""


def test_a_description_keeps_its_form_and_loses_everything_else() -> None:
    assert sanitised(WHOLE) == (
        f"""<div><h2>Über uns</h2><p>Brot &amp; <b>Butter</b>,<br>frisch.</p>
<ul>
  <li>erstens</li>
  <li><p>zweitens, <a href="https://a.example/?a=1&amp;b=2" {LINKS}>hier</a></p></li><li> </li>
</ul><table><tbody><tr><th>Tag</th><th>Zeit</th></tr><tr><td><p>Mo</p></td><td>&lt; 9</td></tr></tbody></table></div>"""
        "\n<div>eins</div><div>zwei</div>"
    )


@pytest.mark.parametrize(
    ("hostile", "kept"),
    [
        ("a<script>alert(1)</script>b", "ab"),
        ("a<style>*{display:none}</style>b", "ab"),
        ("<img src=x onerror=alert(1)>a", "a"),
        ("<svg onload=alert(1)><p>x</svg>a", "<p>xa</p>"),
        ("<iframe src=//evil.example></iframe>a", "a"),
        ('<a href="javascript:alert(1)">a</a>', f"<a {LINKS}>a</a>"),
        ('<a href=" java\tscript:alert(1)">a</a>', f"<a {LINKS}>a</a>"),
        ('<a href="data:text/html,x">a</a>', f"<a {LINKS}>a</a>"),
        ('<a href="//evil.example">a</a>', f"<a {LINKS}>a</a>"),
        ('<a href="mailto:jobs@a.example" rel=opener>a</a>', f'<a href="mailto:jobs@a.example" {LINKS}>a</a>'),
        ("<form action=/v1/session><input name=key><button>a</button></form>", "<div>a</div>"),
        ("<meta http-equiv=refresh content=0><base href=//evil.example>a", "a"),
        ("<<s>script>alert(1)</script>a", "&lt;script&gt;alert(1)a"),
        ("<!-- a --><p>b", "<p>b</p>"),
        ("<p>a</p></div></body><b onclick='x'>b", "<p>a</p><b>b</b>"),
        ("&lt;script&gt;", "&lt;script&gt;"),
    ],
)
def test_nothing_that_acts_is_kept(hostile: str, kept: str) -> None:
    assert sanitised(hostile) == kept
    assert sanitised(kept) == kept


def test_the_text_has_a_line_for_each_block() -> None:
    text = "Über uns\n\nBrot & Butter,\nfrisch.\n\n- erstens\n- zweitens, hier\n\nTag | Zeit\nMo | < 9\n\neins\nzwei"
    assert text_of(WHOLE) == text
    assert text_of(sanitised(WHOLE)) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("no tags &amp; no lines", "no tags & no lines"),
        ("<p> a\n b&nbsp; <i>c</i>d </p>", "a b cd"),
        ("a<br><br><br><br>b<p></p><p> </p><p>c", "a\n\nb\n\nc"),
        ("<ol><li>a<ul><li>b</ul><li>c</ol>d", "- a\n- b\n- c\n\nd"),
        ("<ul><li></li></ul>a", "a"),
        ("a<pre>\nif x:\n    y  = 1\n</pre>b", "a\n\nif x:\n    y  = 1\n\nb"),
        ("<dl><dt>a<dd>b</dl>", "a\nb"),
        ("<script>x</script><style>y</style>a", "a"),
        ("&amp;lt;b&amp;gt; &#8364; &copy;", "&lt;b&gt; € ©"),
    ],
)
def test_text_of(html: str, text: str) -> None:
    assert text_of(html) == text


@pytest.mark.parametrize(
    ("hostile", "kept"),
    [
        ("<div>" * 200_000 + "a", "a"),
        ("<p>" + "".join(f"<b id={n}>" for n in range(30_000)) + "</p>" + "<p>x" * 30_000, "x"),
        ("<a " + " ".join(f"a{n}" for n in range(150_000)) + ">a</a>", "a"),
        ("&" * 1_000_000 + "a", "&a"),
    ],
)
def test_html_that_would_cost_a_parser_dear_is_kept_as_text(hostile: str, kept: str) -> None:
    safe = sanitised(hostile)
    assert "<" not in safe
    assert set(text_of(hostile)) <= {*kept, " "}
    assert sanitised(safe) == safe


def test_a_large_image_within_html_does_not_make_it_text() -> None:
    image = '<img src="data:image/png;base64,' + "A" * 600_000 + '">'
    assert sanitised(f"<p>a</p>{image}<p>b</p>") == "<p>a</p><p>b</p>"


def test_formatting_with_ever_different_attributes_is_not_repeated() -> None:
    """A parser opens what is open anew in each paragraph: here 1,500 elements in 1,500 paragraphs."""
    hostile = "<p>" + "".join(f"<b id='<{n}'>" for n in range(1500)) + "</p>" + "<p>x" * 1500
    assert len(sanitised(hostile)) < 10 * len(hostile)
