"""The page with the report of the reproduction: the same sections as results/reproduction.md."""

from repro.report.site.markup import Markup, markup, page, paragraph, section, tag
from repro.report.site.material import Material
from repro.report.site.reproduction import Part, reproduction
from repro.report.site.tables import frame

FILE = "reproduction.html"


def account_page(material: Material) -> bytes:
    """Scope, what held, what did not, what was easy, what was hard, compute."""
    return page(FILE, "Report of the reproduction", *(_part(part) for part in reproduction(material)))


def _part(part: Part) -> Markup:
    points = (
        tag("ul", [tag("li", tag("strong", lead), " ", text) for lead, text in part.points]) if part.points else None
    )
    table = frame(part.table, part.heading) if part.table is not None else None
    content = markup([paragraph(text) for text in part.paragraphs], points, table)
    return section(part.heading, content, id=part.heading.lower().replace(" ", "-").replace("'", ""))
