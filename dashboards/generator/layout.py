"""Where panels stand."""


def row(title):
    """A heading. Its panels follow it, so it is never closed."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": 24, "h": 1}}


def layout(lines):
    """Gives every panel its place and id.

    Each line is a list of panels from left to right, 24 units wide at most, or a single panel. A tuple of lines among
    the panels is a column: its lines stand below each other.
    """
    panels = []
    _place(lines, 0, 0, panels)
    for at, panel in enumerate(panels, start=1):
        panel["id"] = at
    return panels


def _place(lines, left, top, panels):
    """Where the lines end, to the right and below."""
    right, y = left, top
    for line in lines:
        x, below = left, y
        for item in line if isinstance(line, list) else [line]:
            if isinstance(item, tuple):
                x, bottom = _place(item, x, y, panels)
            else:
                item["gridPos"].update(x=x, y=y)
                panels.append(item)
                x, bottom = x + item["gridPos"]["w"], y + item["gridPos"]["h"]
            below = max(below, bottom)
        assert x <= 24, [panel["title"] for panel in line]
        right, y = max(right, x), below
    return right, y
