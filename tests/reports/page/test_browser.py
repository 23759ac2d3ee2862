import pytest

from tests.reports.page import browser
from tests.reports.page.test_writing import written

CHROMIUM = browser.find()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_the_page_on_desk_and_phone_light_and_dark(tmp_path):
    written(tmp_path)
    faulty = tmp_path / "faulty.html"
    wide = '<img src="data:image/png;base64,AAAA"><p style="width: 900px">wide</p>'
    faulty.write_text(f"<!DOCTYPE html>{wide}<script>throw 1</script>")
    url = (tmp_path / "report.html").as_uri()
    with browser.browser(CHROMIUM) as tab:
        inks = set()
        for width, height in ((1200, 800), (390, 844)):
            for scheme in ("light", "dark"):
                found, faults = tab.open(url, width, height, scheme)
                assert faults == []
                assert found["broken"] == 0 and found["images"] == 1
                assert found["width"] <= found["window"] == width
                assert found["text"] > 500
                inks.add(found["ink"])
        assert len(inks) == 2
        found, faults = tab.open(faulty.as_uri(), 390, 844)
        assert found["broken"] == 1 and found["width"] > 390 and len(faults) == 1
