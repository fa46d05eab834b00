"""Google Drive: large files are behind a page that asks to confirm a download without a virus scan."""

from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

HOSTS = {"drive.google.com", "docs.google.com", "drive.usercontent.google.com"}


def is_drive(url: str) -> bool:
    return urlsplit(url).hostname in HOSTS


class _DownloadForm(HTMLParser):
    """Collects the action and the hidden fields of the first form of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = values.get("action")
        elif tag == "input" and values.get("name") and values.get("value") is not None:
            self.fields[values["name"]] = values["value"]


def confirmation(page: str, url: str) -> tuple[str, dict[str, str]] | None:
    """Return address and query of the download behind the confirmation page, or None where the page offers none.

    It offers none where the file is gone, not shared, or has been downloaded too often (quota).
    """
    form = _DownloadForm()
    form.feed(page)
    if form.action is None or "id" not in form.fields:
        return None
    return urljoin(url, form.action), form.fields
