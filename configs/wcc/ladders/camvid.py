# All compressions compared on CamVid, from one dense checkpoint, with 400 iterations for each
# point.
# python tools/analysis_tools/run_ladder.py configs/wcc/ladders/camvid.py --seeds 0 1 2
config = '../deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256.py'
checkpoint = 'work_dirs/deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256/iter_3000.pth'
recipe = dict(
    optim_wrapper=dict(optimizer=dict(lr=5e-3)),
    param_scheduler=[dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=400, by_epoch=False)],
    train_cfg=dict(max_iters=400),
    train_dataloader=dict(batch_size=8),
    default_hooks=dict(checkpoint=dict(interval=100, max_keep_ckpts=1)),
    val_cfg=None,  # points are tested once, at the end
    val_dataloader=None,
    val_evaluator=None)

# The authors' initialization: weight clips at 3 standard deviations, left to BatchNorm, and
# activation clips at 8.
_paper = dict(weight_quant=dict(normalize='standard', calibration=None), act_quant=dict(calibration=None))
# Their activation quantizer does not clip negative values, so inputs with negative values get
# another bit. These are the outputs of linear bottlenecks.
_signed = (r'backbone\.layer[2-7]\.\d\.conv\.0\.conv|auxiliary_head\.convs\.0\.conv|'
           r'decode_head\.(image_pool\.1|aspp_modules\.0|aspp_modules\.\d\.depthwise_conv|c1_bottleneck)\.conv')
_lsq = dict(weight_quant=dict(type='mmwcc.LSQWeightQuantizer', _delete_=True),
            act_quant=dict(type='mmwcc.LSQActQuantizer', _delete_=True))
_gradual = dict(type='exponential', begin=0, end=0.6, start=1.0)

points = [
    dict(name='dense', train=False, tags=['required']),

    # Quantization alone: the paper's quantizer, initialized by calibration and as by the authors,
    # and LSQ.
    dict(name='quant-w8a8', compression='quant_w8a8', tags=['required']),
    dict(name='quant-w8a6', compression='quant_w8a6'),
    dict(name='quant-w8a4', compression='quant_w8a4', tags=['required']),
    dict(name='quant-w8a3', compression='quant_w8a8', changes=dict(act_quant=dict(bits=3))),
    dict(name='quant-w8a2', compression='quant_w8a2'),
    dict(name='quant-w4a8', compression='quant_w4a8'),
    dict(name='quant-w4a4', compression='quant_w4a8', changes=dict(act_quant=dict(bits=4))),
    *[dict(name=f'quant-w{weights}a{acts}-authors', compression='quant_w8a8', changes=dict(
        weight_quant=dict(_paper['weight_quant'], bits=weights), act_quant=dict(_paper['act_quant'], bits=acts)),
           series="quantized, the authors' start")
      for weights, acts in ((8, 8), (8, 6), (8, 4))],
    *[dict(name=f'quant-w8a{bits}-authors-unclipped', compression='quant_w8a8', changes=dict(
        weight_quant=_paper['weight_quant'], act_quant=dict(_paper['act_quant'], bits=bits),
        rules=[dict(pattern=_signed, act_quant=dict(bits=bits + 1))]), series="quantized, the authors' quantizer")
      for bits in (6, 4)],
    *[dict(name=f'quant-w{weights}a{acts}-lsq', compression='quant_w8a8', changes=dict(
        weight_quant=dict(_lsq['weight_quant'], bits=weights), act_quant=dict(_lsq['act_quant'], bits=acts)),
           series='quantized, LSQ', tags=['required'] if (weights, acts) in ((8, 8), (8, 4)) else [])
      for weights, acts in ((8, 8), (8, 6), (8, 4), (8, 3), (8, 2), (4, 8), (4, 4))],

    # Wavelet compression.
    *[dict(name=f'wcc-w8a8-{keep}', compression=f'wcc_w8a8_{keep}', tags=['required'])
      for keep in ('k50', 'k25', 'k12_5')],
    *[dict(name=f'wcc-w4a8-{keep}', compression=f'wcc_w4a8_{keep}') for keep in ('k50', 'k25', 'k12_5')],
    *[dict(name=f'wcc-w8a8-{keep}-lsq', compression=f'wcc_w8a8_{keep}', changes=dict(
        weight_quant=dict(_lsq['weight_quant'], bits=8), act_quant=dict(_lsq['act_quant'], bits=8)),
           series='WCC 8/8, LSQ')
      for keep in ('k50', 'k25', 'k12_5')],

    # Fewer bits for more coefficients: each point has as many bits in total as 8 bits at 50, 25 or
    # 12.5 %; and 6 bits in between.
    dict(name='wcc-w8a6-k37_5', compression='wcc_w8a8_k50', tags=['required'],
         changes=dict(act_quant=dict(bits=6), pointwise=dict(keep_ratio=0.375))),
    *[dict(name=f'wcc-w8a{bits}-{name}', compression='wcc_w8a8_k50',
           changes=dict(act_quant=dict(bits=bits), pointwise=dict(keep_ratio=keep)))
      for bits, name, keep in ((6, 'k66_7', 2 / 3), (6, 'k33_3', 1 / 3), (6, 'k16_7', 1 / 6),
                               (4, 'k100', 1.0), (4, 'k50', 0.5), (4, 'k25', 0.25))],

    # Sudden against gradual compression, and the paper's descent step by step, which trains longer.
    *[dict(name=f'wcc-w8a8-{keep}-gradual', compression=f'wcc_w8a8_{keep}',
           schedule=dict(keep_ratio=dict(_gradual, stop=stop)), series='WCC 8/8, gradual')
      for keep, stop in (('k50', 0.5), ('k25', 0.25), ('k12_5', 0.125))],
    *[dict(name=f'wcc-w8a8-{keep}-stepwise', compression=f'wcc_w8a8_{keep}', start=start, series='WCC 8/8, stepwise')
      for keep, start in (('k50', 'quant-w8a8'), ('k25', 'wcc-w8a8-k50-stepwise'),
                          ('k12_5', 'wcc-w8a8-k25-stepwise'))],

    # Calibrated without training.
    *[dict(name=f'{name}-ptq', compression=preset, train=False, calibration=dict(images=16),
           series=f"{'quantized' if name[0] == 'q' else 'WCC 8/8'}, not trained")
      for name, preset in (('quant-w8a8', 'quant_w8a8'), ('quant-w8a6', 'quant_w8a6'), ('quant-w8a4', 'quant_w8a4'),
                           ('wcc-w8a8-k50', 'wcc_w8a8_k50'), ('wcc-w8a8-k25', 'wcc_w8a8_k25'),
                           ('wcc-w8a8-k12_5', 'wcc_w8a8_k12_5'))],

    # Bits and coefficients allocated at the cost of 25 and 12.5 %: among the 1x1 layers, or among
    # all layers.
    *[dict(name=f'{kind}-{keep}', compression=f'../_base_/deeplabv3plus_mobilenetv2-os16_w8a8-{keep}-{file}_camvid.yml',
           series=series, tags=['required'] if keep == 'k25' else [])
      for kind, file, series in (('allocated', 'alloc', 'allocated, 1x1 layers'),
                                 ('allocated-all', 'allocall', 'allocated, all layers'))
      for keep in ('k25', 'k12_5')],

    # Distilled from the dense network.
    *[dict(name=f'wcc-w8a8-{keep}-distilled', compression=f'wcc_w8a8_{keep}', distillation=dict(weight=1.0),
           series='WCC 8/8, distilled')
      for keep in ('k50', 'k25', 'k12_5')],
    *[dict(name=f'allocated-all-{keep}-distilled', distillation=dict(weight=1.0), series='allocated, distilled',
           compression=f'../_base_/deeplabv3plus_mobilenetv2-os16_w8a8-{keep}-allocall_camvid.yml')
      for keep in ('k25', 'k12_5')],

    # Other wavelets, table 7 of the paper.
    *[dict(name=f"wcc-w8a8-k25-{wavelet.replace('.', '_')}", compression='wcc_w8a8_k25',
           changes=dict(pointwise=dict(wavelet=wavelet)), series=f'WCC 8/8, {wavelet}')
      for wavelet in ('db2', 'db3', 'coif1', 'bior1.3', 'bior2.2', 'sym4')],
    dict(name='wcc-w8a8-k25-coarse', compression='wcc_w8a8_k25', changes=dict(pointwise=dict(selection='coarse')),
         series='WCC 8/8, coarse'),
]
