"""mmwcc/reports/html_parts.py."""

import base64
import json
import math

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2', reason='images are read with OpenCV')

from mmwcc.reports.html_parts import Cell, Chart, Series, charts_json, data_uri, number, table  # noqa: E402
from mmwcc.reports.run_logs import Curve  # noqa: E402


def test_numbers():
    assert number(1234.5, 1) == Cell('1,234.5', 1234.5)
    assert number(2.0, 0, 'a<b').html == '2<small>a&lt;b</small>'
    for missing in (None, math.nan):
        assert number(missing).html.endswith('>–</span>') and math.isnan(number(missing).value)


def test_table():
    html = table(
        'A & B',
        ['Name', 'Size'],
        [('', [Cell.text('<x>'), number(3.5, 1, share=0.25)])],
        numeric=[1],
    )
    assert 'aria-label="A &amp; B"' in html and '<th scope="row">&lt;x&gt;</th>' in html
    assert '<td class="num share" data-value="3.5" style="--share:0.250">3.5</td>' in html
    assert html.count('aria-sort="none"') == 2


def test_charts_leave_out_what_is_not_finite():
    series = Series.of('a', 1, Curve([1, 2, 3], [1.0, math.nan, math.inf]))
    assert series.points == [(1, 1.0)]
    assert (
        Chart('t', 'x', 'y', [Series('a', 0, [])]).is_empty
        and not Chart('t', 'x', 'y', [series]).is_empty
    )


@pytest.mark.parametrize('abscissas, log', [((1, 9), True), ((1, 7), False), ((0, 9), False)])
def test_scatter_is_logarithmic_beyond_a_factor_of_eight(abscissas, log):
    series = [Series(str(x), 0, [(x, 1.0)]) for x in abscissas]
    assert Chart('t', 'x', 'y', series, scatter=True).data()['log'] is log
    assert Chart('t', 'x', 'y', series).data()['log'] is False


def test_chart_data_cannot_end_its_script():
    name = '</script><!-- & '
    text = charts_json([Chart('t', 'x', name, [Series(name, 0, [(1, 2.0)])])])
    assert '<' not in text and '&' not in text and json.loads(text)[0]['series'][0]['name'] == name


def test_data_uri(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (90, 300, 3), np.uint8)
    flat = np.zeros((50, 40, 3), np.uint8)
    for image, kind, shape in ((noise, 'jpeg', (30, 100)), (flat, 'png', (50, 40))):
        cv2.imwrite(str(tmp_path / 'image.png'), image)
        head, content = data_uri(tmp_path / 'image.png', 100).split(',')
        assert head == f'data:image/{kind};base64'
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape[:2] == shape
    for content in (b'', b'no image'):
        (tmp_path / 'bad.png').write_bytes(content)
        assert data_uri(tmp_path / 'bad.png') is None
