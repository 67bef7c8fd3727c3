"""Markdown tables of benchmark results."""

from __future__ import annotations

__all__ = ['TABLES', 'conditions']


def conditions(about: dict) -> str:
    """Describe in one line where and how the numbers were measured."""
    allocator = (
        'freed memory kept (GLIBC_TUNABLES)'
        if about['allocator'] != 'system'
        else "the system's allocator"
    )
    runtimes = ''.join(
        f'{name} {about[name]}, ' for name in ('onnxruntime', 'openvino', 'nncf') if about.get(name)
    )
    return (
        f'{about["cpu"]}, {about["capability"]}, {about["threads"]} threads, torch '
        f'{about["torch"]}, numba {about["numba"]}, {runtimes}{about["dtype"]}, batch '
        f'{about["batch"]}, {allocator}, commit {about["commit"]}; medians.'
    )


def _table(header: list[str], rows: list[list]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def _times(value: float | None) -> str:
    if value is None:
        return ''
    return f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def _best(row: dict, start: str) -> float:
    return min(
        time
        for name, time in row['milliseconds'].items()
        if name == start or name.startswith(f'{start} ')
    )


def _keeps(rows: list[dict]) -> list[str]:
    return sorted(
        {name for row in rows for name in row['speedup'] if name.startswith('k')},
        key=lambda name: -float(name[1:]),
    )


def _percent(name: str) -> str:
    return f'{100 * float(name[1:]):g} %'


def wcc_layer(content: dict) -> str:
    """Speed relative to nn.Conv2d, for inference and for a training step."""
    rows, keeps, parts = content['rows'], _keeps(content['rows']), []
    for mode, title in (('forward', 'Inference'), ('training step', 'Forward and backward')):
        chosen = [row for row in rows if row['mode'] == mode]
        extra = [name for name in chosen[0]['speedup'] if name.startswith(('int8', 'compiled'))]
        header = ['map', 'channels', 'dense', *map(_percent, keeps), *extra]
        body = [
            [
                f'{row["size"]}x{row["size"]}',
                f'{row["channels"]} → {row["out"]}',
                f'{_best(row, "dense"):.2f} ms',
                *(_times(row['speedup'].get(name)) for name in [*keeps, *extra]),
            ]
            for row in chosen
        ]
        parts.append(f'{title}:\n\n{_table(header, body)}')
    return '\n\n'.join(parts)


def authors(content: dict) -> str:
    """How many times faster the layer is than the authors' layer."""
    found = {}
    for row in content['rows']:
        for name, ratio in row['over_authors'].items():
            found.setdefault((row['size'], row['channels'], row['out']), {})[name, row['mode']] = (
                ratio
            )
    if not found:
        return ''
    columns = {
        '25 %': 'k0.25',
        'floor': 'floor',
        '8/8 bits 25 %': 'w8a8 k0.25',
        'int8 25 %': 'int8 k0.25',
    }
    columns = {
        f'{title}, {short}': (name, mode)
        for mode, short in (('forward', 'forward'), ('training step', 'step'))
        for title, name in columns.items()
        if (name, mode) != ('int8 k0.25', 'training step')
    }
    body = [
        [
            f'{size}x{size}',
            f'{channels} → {out}',
            *(_times(ratios.get(key)) for key in columns.values()),
        ]
        for (size, channels, out), ratios in found.items()
    ]
    return _table(['map', 'channels', *columns], body)


def wcc_block(content: dict) -> str:
    """Table 8: the paper's speed-up, ours, and the floor."""
    body = []
    for row in content['rows']:
        name = f'k{row["keep_ratio"]:g}'
        body.append(
            [
                f'{row["size"]}x{row["size"]}',
                row['channels'],
                row['expansion'],
                _percent(name),
                f'{_best(row, "dense"):.1f} ms',
                _times(row['paper']),
                f'**{row["speedup"][name]:.2f}**',
                _times(row['speedup'].get(f'layers {name}')),
                _times(row['speedup'].get('compiled dense')),
                _times(row['floor']),
                _times(row['required']),
                'yes' if row['passed'] else 'no',
            ]
        )
    header = [
        'map',
        'channels',
        'expansion',
        'kept',
        'dense',
        'paper',
        'ours',
        'layer by layer',
        'compiled dense',
        'floor',
        'required',
        'reached',
    ]
    rates = content['rates']
    return (
        f'Measured rates: copy {rates["copy"] / 1e9:.1f} GB/s, float32 product '
        f'{rates["float32"] / 1e9:.0f} GFLOP/s. Geometric mean of ours: '
        f'**{content["geometric_mean"]:.2f}**.\n\n{_table(header, body)}'
    )


def haar(content: dict) -> str:
    """Share of the memory floor, and of a copy of the map, that kernels reach.

    The table also has the ratio to other packages.
    """
    kinds = ['norms', 'pack quarter', 'unpack quarter', 'pack all', 'unpack all']
    body = []
    for row in content['rows']:
        floor, copy = (
            [
                100 * max(share for name, share in row[key].items() if name.startswith(kind))
                for kind in kinds
            ]
            for key in ('share_of_floor', 'share_of_copy')
        )
        body.append(
            [
                f'{row["size"]}x{row["size"]}',
                row['channels'],
                f'{row["copy"] / 1e9:.0f} GB/s',
                *map('{:.0f} % ({:.0f} %)'.format, floor, copy),
                *(_times(row['over'].get(name)) for name in ('ptwt', 'pywt')),
            ]
        )
    return f'256 MB are copied at {content["copy"] / 1e9:.1f} GB/s.\n\n' + _table(
        ['map', 'channels', 'its copy', *kinds, 'ptwt / pack all', 'PyWavelets / pack all'], body
    )


def training_step(content: dict) -> str:
    """Time and saved bytes of a training step."""
    about = content['environment']
    body = [
        [
            row['name'],
            f'{min(row["milliseconds"].values()):.0f} ms',
            f'{row["time_ratio"]:.2f}',
            f'{row["saved_bytes"] / 1e6:.0f} MB',
            f'{row["saved_ratio"]:.3f}',
        ]
        for row in content['rows']
    ]
    return f'{about["size"]}x{about["size"]}, batch {about["batch"]}:\n\n' + _table(
        ['network', 'step', 'of dense', 'kept for backward', 'of dense'], body
    )


def end_to_end(content: dict) -> str:
    """Time of inference of a whole network."""
    height, width = content['environment']['size']
    body = [
        [
            row['name'],
            *(f'{value:.0f} ms' for value in row['milliseconds'].values()),
            f'{row["speedup"]:.2f}',
        ]
        for row in content['rows']
    ]
    formats = list(content['rows'][0]['milliseconds'])
    return f'{height}x{width}:\n\n' + _table(['network', *formats, 'speed, of dense'], body)


def deployed(content: dict) -> str:
    """Time, error and accuracy of a network in all engines, the fastest first."""
    height, width = content['environment']['size']
    rows = sorted(content['rows'], key=lambda row: row['milliseconds'])
    header = ['engine', 'median', 'quartiles', 'error']
    accuracy = dict(miou='mIoU', same='same class, %')
    accuracy = {key: title for key, title in accuracy.items() if any(key in row for row in rows)}
    body = [
        [
            row['title'],
            f'{row["milliseconds"]:.1f} ms',
            ' to '.join(f'{value:.1f}' for value in row['quartiles']),
            f'{row["error"]:.1e}',
            *(f'{row[key]:.2f}' if key in row else '' for key in accuracy),
        ]
        for row in rows
    ]
    return f'{height}x{width}:\n\n' + _table([*header, *accuracy.values()], body)


def mechanisms(content: dict) -> str:
    """Times of layers without one of the mechanisms of the kernels at a time."""
    names = list(content['rows'][0]['milliseconds'])
    body = [
        [
            f'{row["size"]}x{row["size"]}, {row["channels"]} → {row["out"]}',
            *(f'{row["milliseconds"][name]:.2f} ms' for name in names),
        ]
        for row in content['rows']
    ]
    return _table(['layer', *names], body)


def layer_map(content: dict) -> str:
    """The map of worth at a quarter of the coefficients."""
    rows, name = content['rows'], 'k0.25'
    sizes = sorted({row['size'] for row in rows})
    found = {(row['channels'], row['out'], row['size']): row['speedup'] for row in rows}
    if not all(name in speedup for speedup in found.values()):
        return ''
    pairs = dict.fromkeys((row['channels'], row['out']) for row in rows)
    body = [
        [f'{channels} → {out}', *(_times(found[channels, out, size][name]) for size in sizes)]
        for channels, out in pairs
    ]
    return 'Kept 25 %:\n\n' + _table(['channels', *(f'{size}x{size}' for size in sizes)], body)


TABLES = dict(
    wcc_layer=wcc_layer,
    wcc_layer_system=wcc_layer,
    authors=authors,
    authors_system=authors,
    wcc_block=wcc_block,
    haar=haar,
    training_step=training_step,
    end_to_end=end_to_end,
    end_to_end_system=end_to_end,
    deployed_deeplabv3plus=deployed,
    deployed_deeplabv3plus_system=deployed,
    deployed_segnext=deployed,
    deployed_rtmdet=deployed,
    deployed_efficientdet=deployed,
    mechanisms=mechanisms,
    mechanisms_system=mechanisms,
    layer_map=layer_map,
)
"""By benchmark, what turns its JSON into Markdown."""
