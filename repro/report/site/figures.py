"""Figures with alternative text, caption and the runs or files that they were drawn from."""

from collections.abc import Sequence

from repro.papers import EXPERIMENTS
from repro.report.pages import Picture
from repro.report.site.markup import Child, Markup, link, markup, tag
from repro.report.site.material import Material, Source, dates, hardware
from repro.report.site.numbers import file_of


def figure(picture: Picture, origin: Child) -> Markup:
    """A picture in full; an animation moves only once it was asked for.

    Args:
        picture: What to show; its files lie in the folder figures/ beside the report.
        origin: Where it was drawn from.
    """
    name = next(iter(picture.files))
    image = tag("img", src=f"../figures/{name}", alt=picture.words, loading="lazy", class_=ground_of(picture))
    if name.endswith(".gif"):
        image = tag("details", tag("summary", f"Play: {picture.words}"), image)
    else:
        image = link(f"../figures/{name}", image)
    files = [markup(" ", link(f"../figures/{file}", file.rpartition(".")[2].upper())) for file in picture.files]
    caption = tag("figcaption", picture.words, " ", tag("span", origin, " Files:", files, class_="origin"))
    return tag("figure", image, caption)


def ground_of(picture: Picture) -> str | None:
    """The class of a drawing of lines and letters, whose ground and ink the dark scheme may exchange.

    Pictures whose colours mean something (densities, samples) stay as they are.
    """
    drawings = [content for file, content in picture.files.items() if file.endswith(".svg")]
    return "drawing" if drawings and not any(b"<image" in content for content in drawings) else None


def thumbnail(pictures: Sequence[Picture]) -> Markup:
    """A small still of the first picture, or a note that there is none."""
    stills = [(file, picture) for picture in pictures for file in picture.files if file.endswith(".png")]
    if not stills:
        return tag("span", "no figure", class_="blank")
    file, picture = stills[0]
    kind = " ".join(filter(None, ("thumb", ground_of(picture))))
    return tag("img", src=f"../figures/{file}", alt=picture.words, loading="lazy", class_=kind)


def origin_of_runs(material: Material, name: str) -> Markup:
    """Says which runs the pictures of an experiment were drawn from, by artefact, with links to their lists."""
    runs = material.drawn_from(name)
    parts = []
    for experiment in dict.fromkeys(str(run.info["experiment"]) for run in runs):
        own = [run for run in runs if run.info["experiment"] == experiment]
        place = "#runs" if experiment == name else f"{file_of(experiment)}#runs"
        noun = "1 run" if len(own) == 1 else f"{len(own)} runs"
        words = link(place, f"{noun} of {EXPERIMENTS[experiment].artefact}")
        parts += [", " if parts else "", words, f" ({', '.join(filter(None, (hardware(own), dates(own))))})"]
    return markup(f"Drawn in tier {material.level(name)} from ", parts, ".")


def origin_of_files(sources: Sequence[Source]) -> Markup:
    """Says which benchmark files a picture or table was drawn from."""
    parts: list[Child] = []
    for source in sources:
        known = ", ".join(filter(None, (source.hardware, source.date, source.commit and f"commit {source.commit}")))
        parts += [", " if parts else "", link(f"../benchmarks/{source.path}", source.path), f" ({known})"]
    return markup("Drawn from ", parts, ".") if parts else Markup()
