"""mmwcc/reports/html_report.py: the structure of the page, and the page in a browser where there is
one.
"""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip('mmengine', reason='work folders are read with mmengine', exc_type=ImportError)
cv2 = pytest.importorskip('cv2', reason='images are read with OpenCV')

import toy_work_dirs as toy  # noqa: E402

from mmwcc.reports.html_report import short_names, write_report  # noqa: E402
from mmwcc.reports.work_dirs import read_work_dir  # noqa: E402

SECTIONS = [
    'overview',
    'trade-off',
    'curves',
    'statistics',
    'predictions',
    'figures',
    'layers',
    'settings',
    'notes',
]
VOID = {'meta', 'link', 'input', 'img', 'br'}
EVIL = '<script>alert(1)<b>"&'
CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome'))),
    None,
)


class Page(HTMLParser):
    """What a page is made of; fails on tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.texts, self.rows, self._open = [], [], [], {}, []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if 'id' in attrs:
            self.ids.append(attrs['id'])
        if tag not in VOID:
            self._open.append((tag, attrs))
        if tag == 'tr' and any(outer == 'tbody' for outer, _ in self._open):
            place = self.section()
            self.rows[place] = self.rows.get(place, 0) + 1

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        if self._open and self._open[-1][0] not in ('script', 'style'):
            self.texts.append((self.section(), data))

    def section(self):
        return next((attrs['id'] for tag, attrs in self._open if tag == 'section'), None)

    def text(self, section):
        return ' '.join(text for place, text in self.texts if place == section)

    def find(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def make_folders(folder):
    """Write a dense model, a tested one with latency and images, and one with hostile names."""
    dense = toy.make_work_dir(folder / 'net_dense_street', miou=(30.0, 60.0))
    wcc = toy.make_work_dir(folder / 'net_wcc_street', toy.COMPRESSION, miou=(20.0, 40.0))
    toy.write_test(wcc, '20260103_000000', mIoU=45.0)
    toy.write_latency(wcc, 4.0)
    toy.write_checkpoint(wcc, dict(layers={}))
    toy.write_image(wcc, 'test_1.png_0.png')
    evil = toy.make_work_dir(
        folder / f'net_{EVIL}_street', toy.COMPRESSION, name=EVIL, note=f'{EVIL}</pre>'
    )
    toy.write_image(evil, f'{EVIL}_40.png')
    # As older runs recorded layers, and as groups with a hostile name.
    toy.write_statistics(wcc, dict(point=10.0, spatial=20.0))
    toy.write_statistics(evil, {f'{EVIL}/{part}': 5.0 for part in ('mean', 'min', 'max')})
    return [dense, wcc, evil]


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')
    write_report(
        [read_work_dir(path) for path in make_folders(folder)],
        folder / 'new' / 'report.html',
        title=f'A & B {EVIL}',
        remarks=[f'left out {EVIL}'],
    )
    return folder / 'new' / 'report.html'


@pytest.fixture(scope='module')
def page(report):
    return Page(report.read_text(encoding='utf-8'))


def test_sections_and_ids(page):
    assert [attrs['id'] for attrs in page.find('section')] == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    names = [
        attrs[key] for _, attrs in page.tags for key in ('aria-labelledby', 'for') if key in attrs
    ]
    assert names and set(names) <= set(page.ids)
    links = [attrs['href'] for attrs in page.find('a')]
    assert [f'#{name}' for name in SECTIONS] == links[1:] and links[0] == '#overview'


def test_rows_and_columns(page):
    assert (page.rows['overview'], page.rows['layers']) == (3, 9)
    assert (
        page.text('settings').count('model.compression.pointwise.keep_ratio') == 3
    )  # once compared, twice in full
    assert 'model.task_type' in page.text('settings')
    cells = [attrs for tag, attrs in page.tags if tag == 'td' and 'data-value' in attrs]
    assert [float(attrs['data-value']) for attrs in cells if 'share' in attrs.get('class', '')][
        0
    ] == pytest.approx(32 * 32 * 8 * 16 * 9 * 3 * 8 / 1e6)


def test_nothing_comes_from_elsewhere(report, page):
    text = report.read_text(encoding='utf-8')
    addresses = set(re.findall(r'https?://[^\s"\'<)]+', text))
    assert addresses <= {
        'http://www.w3.org/2000/svg'
    }  # the name of a namespace, which nobody fetches
    for _, attrs in page.tags:
        for key in ('src', 'href'):
            assert attrs.get(key, '#').startswith(('#', 'data:'))
    assert '@import' not in text and 'url(' not in text


def test_names_are_escaped(report, page):
    assert report.read_text(encoding='utf-8').count('<script') == 2
    assert '<b>"&' in page.text('overview') and 'alert(1)' in page.text('notes')
    charts = json.loads(
        re.search(r'id="charts">(.*?)</script>', report.read_text(encoding='utf-8'), re.S).group(1)
    )
    assert {series['name'] for series in charts[0]['series']} == {'dense', 'wcc', EVIL}
    assert f'{EVIL}: {EVIL}' in {series['name'] for series in charts[-1]['series']}
    assert EVIL in page.text('figures') and f'left out {EVIL}' in page.text('notes')


def test_statistics_are_means_within_their_range(report):
    charts = json.loads(
        re.search(r'id="charts">(.*?)</script>', report.read_text(encoding='utf-8'), re.S).group(1)
    )
    (chart,) = [chart for chart in charts if chart['y'] == 'act_sqnr']
    curves = {series['name']: series for series in chart['series']}
    assert curves['wcc: QuantConv2d']['points'] == [[20, 20.0], [40, 20.0]]
    assert curves[f'{EVIL}: {EVIL}']['band'] == [[20, 5.0, 5.0], [40, 5.0, 5.0]]
    assert [curves[name]['dash'] for name in curves if name.startswith('wcc')] == [0, 1]


def test_figures(page):
    overview = page.text('overview')
    assert '45.00' in overview and '60.00' in overview and 'validation, iteration 40' in overview
    assert '4.0' in overview and 'p95 8.0, dense twin 12.0' in overview and '8/4' in overview
    assert (
        len(page.find('figure')) == 4 + 1 + 3 + 1
    )  # accuracy against cost, three curves, a statistic, a prediction of three models, a figure
    alternatives = [attrs['alt'] for attrs in page.find('img')]
    assert alternatives == ['test_1.png by wcc', f'{EVIL} by {EVIL}']


def test_latencies_of_different_inputs_are_not_mixed(tmp_path):
    """Models are compared at the input that most have; what was measured at another is named."""
    folders = [toy.make_work_dir(tmp_path / f'net_{name}') for name in 'abcd']
    for folder, median in zip(folders, (4.0, 5.0, 6.0, 7.0), strict=True):
        toy.write_latency(folder, median)
    for folder in (folders[0], folders[2]):
        file = folder / 'benchmark.json'
        content = json.loads(file.read_text())
        more = [dict(row, shape=[1, 3, 64, 64], latency_ms=77.0) for row in content['rows']]
        rows = {folders[0]: more + content['rows'], folders[2]: more}[folder]
        file.write_text(json.dumps(dict(content, rows=rows)))
    write_report([read_work_dir(folder) for folder in folders], tmp_path / 'out.html')
    overview = Page((tmp_path / 'out.html').read_text(encoding='utf-8')).text('overview')
    assert overview.count('input 1x3x64x64') == 1 and overview.count('77.0') == 2
    assert all(f'{median} p95' in overview for median in (4.0, 5.0, 7.0))


def test_what_is_missing_is_said(page):
    notes, predictions = page.text('notes'), page.text('predictions')
    assert predictions.count('not drawn') == 2
    assert 'No test is on record' in notes and 'No latency is on record' in notes
    assert 'There is no checkpoint' in notes and 'Costs are for one image of 8x16' in notes
    assert 'Latency was measured on 1x3x8x16 by Some CPU' in notes


def test_a_model_that_says_nothing(tmp_path):
    toy.write_test(tmp_path, '20260103_000000', count=1)
    (tmp_path / 'x.py').write_text("model = dict(type='NobodyHasThis')\n")
    work_dir = read_work_dir(tmp_path)
    work_dir.tests.clear()
    write_report([work_dir], tmp_path / 'out.html')
    page = Page((tmp_path / 'out.html').read_text(encoding='utf-8'))
    assert page.rows['overview'] == 1 and page.find('svg') == [] and 'layers' not in page.rows
    assert not {'statistics', 'figures'} & set(page.ids)
    assert 'No training is on record' in page.text('curves') and 'No predictions' in page.text(
        'predictions'
    )
    assert 'both an accuracy and a cost' in page.text(
        'trade-off'
    ) and 'could not be built' in page.text('notes')


def test_short_names(tmp_path):
    assert short_names([Path('a_dense_4_x'), Path('a_wcc-k25_4_x')]) == ['dense', 'wcc-k25']
    assert short_names([Path('a_b'), Path('a_b_c')]) == ['a_b', 'a_b_c']
    assert short_names([Path('one')]) == ['one']
    assert short_names([tmp_path / '1' / 'work', tmp_path / '2' / 'work']) == ['1/work', '2/work']
    assert short_names([Path('same'), Path('same')]) == ['same (1)', 'same (2)']


def test_errors(tmp_path):
    with pytest.raises(ValueError, match='work_dirs must name at least one work folder, got none'):
        write_report([], tmp_path / 'x.html')
    with pytest.raises(ValueError, match='images must not be negative, got -1'):
        write_report(
            [read_work_dir(toy.make_work_dir(tmp_path / 'a'))], tmp_path / 'x.html', images=-1
        )


PROBE = """
<script>
const results = {width: innerWidth, content: document.documentElement.scrollWidth, errors: failures,
  hidden: [...document.querySelectorAll('body *')].filter(element => !element.closest('.scroll, pre, .skip, svg')
    && element.getBoundingClientRect().right > innerWidth + 0.5).map(element => element.outerHTML.slice(0, 80)),
  drawn: [...document.querySelectorAll('.chart > svg')].map(svg => svg.querySelectorAll('.mark, path[style]').length)};
const rows = document.querySelector('#overview tbody').rows;
const names = () => [...rows].map(row => row.cells[0].innerText.split('\\n')[0]);
const header = document.querySelectorAll('#overview thead th')[3], button = header.querySelector('button');
button.focus();
results.focused = document.activeElement === button;
button.click();
results.ascending = [header.getAttribute('aria-sort'), ...names()];
button.click();
results.descending = [header.getAttribute('aria-sort'), ...names()];
const latency = document.querySelectorAll('#overview thead th button')[6];
latency.click();
results.missing = [names()[0]];
latency.click();
results.missing.push(names()[0]);
const shown = () => [...document.querySelector('#layers tbody').rows].filter(row => row.offsetHeight).length;
const model = document.getElementById('layer-model'), words = document.getElementById('layer-text');
results.shown = [shown()];
for (const [choice, text] of [['', ''], ['', 'QUANTCONV point'], ['', 'quantconv2d'], ['0', '']]) {
  model.value = choice, words.value = text;
  words.dispatchEvent(new Event('input', {bubbles: true}));
  results.shown.push(shown());
}
results.count = document.getElementById('layer-count').textContent;
const page = () => getComputedStyle(document.body).backgroundColor;
results.pages = [page()];
document.getElementById('theme').click();
results.pages.push(page());
const svg = document.querySelector('.chart > svg'), bounds = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent('pointermove', {clientX: bounds.left + 60, clientY: bounds.top + 60}));
results.tip = document.querySelector('.tip')?.innerText;
svg.dispatchEvent(new PointerEvent('pointerleave'));
results.left = document.querySelectorAll('.tip, .cursor').length;
parent.postMessage(JSON.stringify(results), '*');
</script></body>"""  # noqa: E501


def browse(page, *options):
    """Run Chromium on a page and return what it prints."""
    done = subprocess.run(
        [
            CHROMIUM,
            '--headless=new',
            '--no-sandbox',
            '--disable-gpu',
            '--hide-scrollbars',
            f'--user-data-dir={page.parent / "profile"}',
            '--virtual-time-budget=3000',
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def frame(page, width, scheme, script=''):
    """Write a page that shows another in a frame, for windows have a least width, and return it."""
    outer = page.with_name(f'frame-{page.stem}-{width}-{scheme}.html')
    outer.write_text(
        f'<body style="margin:0"><iframe src="{page.name}" '
        f'style="border:0;width:{width}px;height:3000px;color-scheme:{scheme}"></iframe>{script}</body>'
    )
    return outer


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium or Chrome on the PATH')
@pytest.mark.parametrize('width', [390, 1280])
def test_behaviour_in_a_browser(report, width):
    text = report.read_text(encoding='utf-8')
    probed = report.with_name('probed.html')
    probed.write_text(
        text.replace(
            '<style>',
            '<script>const failures = []; onerror = message => '
            'failures.push(message)</script><style>',
            1,
        ).replace('</body>', PROBE)
    )
    outer = frame(
        probed,
        width,
        'light',
        '<pre></pre><script>onmessage = event => '
        "document.querySelector('pre').textContent = event.data</script>",
    )
    printed = Page(browse(outer, f'--window-size={max(width, 600)},3000', '--dump-dom'))
    seen = json.loads(next(text for _, text in printed.texts if text.startswith('{')))
    assert (
        seen['errors'] == [] and seen['width'] == seen['content'] == width and seen['hidden'] == []
    )
    assert (
        seen['focused']
        and seen['ascending'][0] == 'ascending'
        and seen['descending'][0] == 'descending'
    )
    assert seen['ascending'][3] == seen['descending'][1] == 'dense'
    assert seen['missing'] == [
        'wcc',
        'wcc',
    ]  # the only one with a latency, whichever way it is sorted
    assert seen['shown'] == [3, 9, 0, 2, 3] and seen['count'] == '3 of 9 rows'
    assert len(seen['drawn']) == 5 and min(seen['drawn']) >= 3
    assert seen['pages'] == ['rgb(246, 247, 249)', 'rgb(15, 19, 23)']
    assert (
        seen['tip'].startswith(('dense', 'wcc', EVIL))
        and 'G BOPs' in seen['tip']
        and seen['left'] == 0
    )


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium or Chrome on the PATH')
@pytest.mark.parametrize(
    'width, scheme, background, first',
    [(390, 'light', (249, 247, 246), (196, 98, 11)), (1280, 'dark', (23, 19, 15), (255, 176, 108))],
)
def test_screenshot(report, tmp_path, width, scheme, background, first):
    browse(
        frame(report, width, scheme),
        f'--window-size={max(width, 600)},3000',
        f'--screenshot={tmp_path / "s.png"}',
    )
    image = cv2.imread(str(tmp_path / 's.png'))[:, :width]
    assert image.shape[1] == width and (image[5, 2] == background).all()
    # The colour of the first model, BGR: its swatches, its mark in the scatter and its curves.
    assert (abs(image.astype(int) - first).max(2) < 3).sum() > 500


def test_percentages_say_that_they_are_of_the_dense_run(tmp_path):
    """It need not be the first one."""
    compressed = toy.make_work_dir(tmp_path / 'small', toy.COMPRESSION)
    dense = toy.make_work_dir(tmp_path / 'large')
    pages = []
    for folders in ([compressed, dense], [compressed, compressed]):
        work_dirs = [read_work_dir(folder) for folder in folders]
        write_report(work_dirs, tmp_path / 'report.html')
        pages.append((tmp_path / 'report.html').read_text(encoding='utf-8'))
    assert pages[0].count(' % of large<') == 1 and ' % of small<' not in pages[0]
    assert '100 % of ' in pages[1] and 'percentages are of' not in pages[1]
