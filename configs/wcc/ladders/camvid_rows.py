# Rows of coefficients with scales and bits by their energy, against plain quantization and wavelet compression at the
# same costs, on CamVid: 120 iterations of batch 4 from one dense checkpoint, tested on all images.
# python tools/analysis_tools/run_ladder.py configs/wcc/ladders/camvid_rows.py --seeds 0 1 2
_base_ = './camvid.py'
recipe = dict(
    param_scheduler=[dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=120, by_epoch=False)],
    train_cfg=dict(max_iters=120),
    train_dataloader=dict(batch_size=4),
    default_hooks=dict(checkpoint=dict(interval=60, max_keep_ckpts=1)))

_widths = [0, 3, 4, 5, 6, 8]
_energy = dict(type='mmwcc.EnergyActQuantizer')
_name = {8: '8', 6: '6', 4: '4', 3: '3', 2: '2', 1.5: '1_5', 1: '1'}


def _point(name, compression, pointwise, series):
    return dict(name=name, compression=compression, changes=dict(pointwise=pointwise) if pointwise else {},
                series=series)


def _plain(bits):
    """Quantize the inputs of 1x1 layers with one clip."""
    return _point(f'plain-{bits}', 'quant_w8a8', dict(act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=bits)),
                  'plain, one clip')


def _lsq(bits):
    """Quantize the inputs of 1x1 layers with one clip, learned by LSQ."""
    return _point(f'lsq-{bits}', 'quant_w8a8', dict(act_quant=dict(type='mmwcc.LSQActQuantizer', bits=bits)),
                  'plain, one clip, LSQ')


def _position(bits):
    """Quantize the inputs of 1x1 layers with a scale for every pixel."""
    return _point(f'position-{bits}', 'quant_w8a8', dict(act_quant=dict(_energy, bits=bits)), 'plain, a scale a pixel')


def _wcc(keep):
    return _point(f'wcc-{keep}', f'wcc_w8a8_{keep}', None, 'WCC 8/8')


def _rows(bits):
    """Quantize rows of coefficients with scales and bits by their energy."""
    return _point(f'rows-{_name[bits]}', 'wcc_w8a8_k50',
                  dict(keep_ratio=1.0, act_quant=dict(_energy, bits=bits, widths=_widths)), 'rows by energy')


def _untrained(point):
    return dict(point, name=f"{point['name']}-ptq", train=False, calibration=dict(images=16),
                series=f"{point['series']}, not trained")


points = [
    *[dict(point, tags=['required']) for point in (
        _plain(8), _plain(4), _plain(3), _position(4), _position(2), _wcc('k50'), _wcc('k25'), _wcc('k12_5'),
        _rows(4), _rows(2), _rows(1))],
    _rows(3), _plain(2), _plain(6), _position(3), _rows(1.5),
    *[_lsq(bits) for bits in (8, 4, 3, 2)],
    dict(name='dense', train=False),
    *[_untrained(point) for point in (
        *[_rows(bits) for bits in (4, 3, 2, 1.5, 1)], *[_plain(bits) for bits in (8, 6, 4, 3, 2)],
        *[_position(bits) for bits in (4, 3, 2)], *[_wcc(keep) for keep in ('k50', 'k25', 'k12_5')],
        *[_lsq(bits) for bits in (8, 4, 3, 2)])],
]
