_base_ = './edsr_x2c64b16-sep_dense_300ki_div2k-48x48.py'
model = dict(generator=dict(scale=4))
train_pipeline = [
    dict(type='mmwcc.LoadImagePair', scale=4),
    dict(type='mmwcc.PairedRandomCrop', crop_size=48),
    dict(type='mmwcc.PairedRandomFlipRotate'),
    dict(type='mmwcc.PackImagePair')
]
test_pipeline = [dict(type='mmwcc.LoadImagePair', scale=4), dict(type='mmwcc.PackImagePair')]
train_dataloader = dict(
    dataset=dict(data_prefix=dict(img='DIV2K_train_LR_bicubic/X4'), img_tmpl='{}x4', pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(data_prefix=dict(img='DIV2K_valid_LR_bicubic/X4'), img_tmpl='{}x4', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(crop_border=10)
test_evaluator = val_evaluator
# The authors start from the network for x2; layers whose shape differs are newly initialized.
load_from = 'work_dirs/edsr_x2c64b16-sep_dense_300ki_div2k-48x48/iter_300000.pth'
